"""``python -m bench.faults.failover``: the primary dies under load, its synchronous standby takes over, all is there.

The same load, history and checker as every run; one fault, and one that the ordinary runs cannot have.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.faults import report
from bench.faults.checker import Wanted
from bench.faults.nemesis import Nemesis
from bench.faults.observers import Observer
from bench.faults.run import Options, Run
from bench.faults.standby import Pair

FAIL_OVER = "kill primary, promote"


class OneFailover(Nemesis):
    async def run(self, until: Callable[[], bool]) -> None:
        """Half of the time before it, and half of it after."""
        while not until() and self.fired == 0:
            await self.phase.sleep(self.random.uniform(2.0, 4.0))
            self.current = FAIL_OVER
            await self.fire(FAIL_OVER)
            self.current = "nothing"
        while not until():
            await self.phase.sleep(0.1)
        await self.recovered()


class FailoverRun(Run):
    def make_cluster(self) -> Pair:
        return Pair(self.options.directory, is_synchronous=True)

    async def make_nemesis(self, _observer: Observer) -> Nemesis:
        async def fail_over(nemesis: Nemesis, _: float) -> None:
            assert isinstance(nemesis.cluster, Pair)
            await nemesis.cluster.fail_over()

        return OneFailover(
            self.cluster, self.recorder, self.pulse, self.phase, self.options.seed, others={FAIL_OVER: fail_over}
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults.failover", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=300.0, help="messages a second, over all publishers")
    parser.add_argument("--out", type=Path, help="where the history, the logs and the report go, and stay")
    given = parser.parse_args()
    directory = given.out or Path(tempfile.mkdtemp(prefix="logpost-failover-"))
    directory.mkdir(parents=True, exist_ok=True)
    print(f"seed {given.seed}; files in {directory}", flush=True)

    options = Options(given.seed, given.seconds / 60, given.rate, directory, Wanted(messages=100, faults=1))
    verdict = asyncio.run(FailoverRun(options).run())

    print(report.text(verdict))
    if verdict.passed and given.out is None:
        shutil.rmtree(directory)
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
