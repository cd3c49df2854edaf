"""The checker: a history in, a verdict out. It knows the server by what its clients were told, and by nothing else.

    python -m bench.faults.checker DIRECTORY [--seed N]     checks a recorded history again

Partitions are checked one after the other, so memory is bounded by the largest shard. ``unknown`` is a failure: a run
in which nothing was acknowledged, no fault fired, or the drain or the final audit is missing has shown nothing.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.faults import report, shards
from bench.faults.context import Context
from bench.faults.history import Event
from bench.faults.invariants import attempts, cursor, fence, leaks, log, order, pushes, quiet, reads
from bench.faults.picture import Picture
from bench.faults.shards import Partitions
from bench.faults.verdict import Findings, Verdict

# Order first: it marks what failures took back, which the families after it need.
FAMILIES = (order, log, reads, fence, cursor, attempts, quiet)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run has to have seen before it may be called valid."""

    messages: int = 1
    faults: int = 1


def check_events(events: Iterable[Event], *, seed: int = 0, wanted: Wanted | None = None) -> Verdict:
    """Checks a history that is in memory."""
    return _check(*shards.in_memory(events), seed, wanted or Wanted())


def check_directory(directory: Path, *, seed: int = 0, wanted: Wanted | None = None) -> Verdict:
    """Checks the files of a run, shard by shard."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        gc.disable()  # millions of objects, and no cycles among them
        try:
            return _check(*shards.on_disk(directory, Path(scratch)), seed, wanted or Wanted())
        finally:
            gc.enable()


def _check(context: Context, partitions: Partitions, seed: int, wanted: Wanted) -> Verdict:
    findings = Findings(context.faults)
    totals = report.Totals()
    latencies: quiet.Latencies = {}
    repeats: pushes.Repeats = {}
    stored: dict[str, tuple[str, int]] = {}
    floating = {event.val for event in context.floating if event.val is not None}
    for (topic, part), events in partitions:
        picture = Picture(context, topic, part, events)
        for family in FAMILIES:
            family.check(picture, findings)
        pushes.check(picture, findings, repeats)
        quiet.collect_latencies(picture, latencies)
        totals.take(picture)
        _check_elsewhere(picture, floating, stored, findings)
    quiet.check_independence(context, latencies, findings)
    pushes.check_total(context, repeats, findings)
    leaks.check(context, findings)
    for torn in context.torn:
        findings.add("I17", "torn", torn.val or "?", torn)
    for quiesce in context.quiesces:
        if quiesce.type != "ok":
            findings.add("I16", "no drain", "the lag did not come to 0 in time", quiesce)
    reasons = _reasons(context, totals, wanted)
    outcome: Literal["valid", "invalid", "unknown"] = "unknown" if reasons else "valid"
    if findings.counts:
        outcome = "invalid"
    return Verdict(outcome, findings, reasons, report.build(context, findings, totals, seed))


def _check_elsewhere(
    picture: Picture, floating: set[str], stored: dict[str, tuple[str, int]], findings: Findings
) -> None:
    """I14 over partitions: a publish whose partition nobody was told lies in one of them at most."""
    for event in picture.log.values():
        if event.val not in floating or event.val is None:
            continue
        if stored.setdefault(event.val, (picture.topic, picture.part)) != (picture.topic, picture.part):
            findings.add("I14", "in two partitions", f"{event.val} is in {stored[event.val]} too", event)


def _reasons(context: Context, totals: report.Totals, wanted: Wanted) -> list[str]:
    """Why nothing may be concluded from this history."""
    faults = len(context.faults)
    checks = {
        "no publish was acknowledged": context.counts["publish.ok"] == 0,
        "no delivery was acknowledged": context.counts["ack.ok"] == 0,
        "no fault fired": faults == 0,
        "there was no drain": not context.quiesces,
        "no partition was audited at the end": totals.audited == 0,
        f"only {totals.audited} of {totals.partitions} partitions were audited at the end": 0
        < totals.audited < totals.partitions,
        f"only {context.counts['publish.ok']} messages, of {wanted.messages}": context.counts["publish.ok"]
        < wanted.messages,
        f"only {faults} faults, of {wanted.faults}": faults < wanted.faults,
    }  # fmt: skip
    return [reason for reason, true in checks.items() if true]


def summary(verdict: Verdict) -> dict[str, Any]:
    """The verdict as the JSON report has it."""
    return {"verdict": verdict.outcome, "reasons": verdict.reasons, **verdict.report}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults.checker", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begin = time.monotonic()
    verdict = check_directory(arguments.directory, seed=arguments.seed)
    print(report.text(verdict))
    print(f"checked in {time.monotonic() - begin:.1f} s")
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
