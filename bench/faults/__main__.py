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
from bench.faults.plan import RATE
from bench.faults.run import Options, Run
from bench.faults.verdict import Verdict

# What a run of a minute is to come to, for a short one and from LONG_MINUTES on: messages, and windows with a fault.
LONG_MINUTES = 15.0
SHORT_GOAL, LONG_GOAL = (50_000, 15), (33_334, 5)


def fewer(verdict: Verdict, minutes: float) -> list[str]:
    """What there is less of than there should be. A slow machine is no fault of what it tests."""
    messages, windows = LONG_GOAL if minutes >= LONG_MINUTES else SHORT_GOAL
    wanted = {"messages acknowledged": messages * minutes, "windows with a fault": windows * minutes}
    there = {
        "messages acknowledged": verdict.report["stored"],
        "windows with a fault": verdict.report["windows"],
    }
    return [f"{there[what]} {what}, of {count:.0f}" for what, count in wanted.items() if there[what] < count]


def command_of(given: argparse.Namespace) -> str:
    return f"make faults SEED={given.seed} MINUTES={given.minutes:g}" + (
        f" RATE={given.rate:g}" if given.rate != RATE else ""
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=RATE, help="messages a second, over all publishers")
    parser.add_argument("--out", type=Path, help="where the history, the logs and the report go, and stay")
    parser.add_argument("--report", type=Path, help="where the report goes as Markdown, with the command it came from")
    parser.add_argument("--broken", choices=BROKEN, help="spoil this in the run's database; to pass is to catch it")
    parser.add_argument("--messages", type=int, default=1, help="fewer acknowledged publishes are no result")
    parser.add_argument("--faults", type=int, default=1, help="fewer faults are no result")
    given = parser.parse_args()
    directory = given.out or Path(tempfile.mkdtemp(prefix="logpost-faults-"))
    directory.mkdir(parents=True, exist_ok=True)
    print(f"seed {given.seed}, {given.minutes} minutes; files in {directory}", flush=True)

    broken = BROKEN.get(given.broken or "")
    wanted = Wanted(given.messages, given.faults)
    drain_s = max(300.0, given.minutes * 20) if broken is None else 15.0  # what is broken may never be done
    options = Options(given.seed, given.minutes, given.rate, directory, wanted, broken, drain_s)
    verdict = asyncio.run(Run(options).run())

    print(report.text(verdict))
    for line in fewer(verdict, given.minutes):
        print(f"warning: {line}")
    if given.report is not None:
        given.report.write_text(report.markdown(verdict, command_of(given)))
    (directory / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary(verdict)), indent=2))
    passed = verdict.passed if broken is None else bool(verdict.findings.invariants() & broken.caught_by)
    if broken is not None:
        print(f"{given.broken}: {'caught' if passed else 'not caught'}")
    if passed and given.out is None:
        shutil.rmtree(directory)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
