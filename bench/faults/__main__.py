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
from bench.faults.checker import Wanted, summary
from bench.faults.run import Options, Run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="messages a second, over all publishers")
    parser.add_argument("--out", type=Path, help="where the history, the logs and the report go, and stay")
    parser.add_argument("--messages", type=int, default=1, help="fewer acknowledged publishes are no result")
    parser.add_argument("--faults", type=int, default=1, help="fewer faults are no result")
    given = parser.parse_args()
    directory = given.out or Path(tempfile.mkdtemp(prefix="logpost-faults-"))
    directory.mkdir(parents=True, exist_ok=True)
    print(f"seed {given.seed}, {given.minutes} minutes; files in {directory}", flush=True)

    options = Options(given.seed, given.minutes, given.rate, directory, Wanted(given.messages, given.faults))
    verdict = asyncio.run(Run(options).run())

    print(report.text(verdict))
    (directory / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary(verdict)), indent=2))
    if verdict.passed and given.out is None:
        shutil.rmtree(directory)
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
