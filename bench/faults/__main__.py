"""``python -m bench.faults --seed S --minutes M``: breaks a running Logpost in every way it knows, and judges it."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from bench.faults import report
from bench.faults.broken import BROKEN
from bench.faults.checker import Wanted, summary
from bench.faults.run import Options, Run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=1300.0, help="messages a second, over all publishers")
    parser.add_argument("--out", type=Path, help="where the history, the logs and the report go, and stay")
    parser.add_argument("--broken", choices=BROKEN, help="spoil this in the run's database; to pass is to catch it")
    parser.add_argument("--messages", type=int, default=1, help="fewer acknowledged publishes are no result")
    parser.add_argument("--faults", type=int, default=1, help="fewer faults are no result")
    given = parser.parse_args()
    directory = given.out or Path(tempfile.mkdtemp(prefix="logpost-faults-"))
    directory.mkdir(parents=True, exist_ok=True)
    print(f"seed {given.seed}, {given.minutes} minutes; files in {directory}", flush=True)

    broken = BROKEN.get(given.broken or "")
    wanted = Wanted(given.messages, given.faults)
    drain_s = 300.0 if broken is None else 15.0  # what is broken may never be done
    options = Options(given.seed, given.minutes, given.rate, directory, wanted, broken, drain_s)
    verdict = asyncio.run(Run(options).run())

    print(report.text(verdict))
    (directory / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary(verdict)), indent=2))
    passed = verdict.passed if broken is None else bool(verdict.findings.invariants() & broken.caught_by)
    if broken is not None:
        print(f"{given.broken}: {'caught' if passed else 'not caught'}")
    if passed and given.out is None:
        shutil.rmtree(directory)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
