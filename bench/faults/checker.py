"""The checker: a history in, a verdict out. It knows the server by what its clients were told, and by nothing else.

    python -m bench.faults.checker DIRECTORY [--seed N]     checks a recorded history again

Partitions are checked one after the other, so memory is bounded by the largest shard. ``unknown`` is a failure: a run
in which nothing was acknowledged, no fault fired, or the drain or the final audit is missing has shown nothing.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.faults import report, shards
from bench.faults.context import Context, Place
from bench.faults.history import Event
from bench.faults.invariants import attempts, cursor, fence, leaks, log, order, pushes, quiet, reads
from bench.faults.picture import Picture
from bench.faults.shards import Load, Partitions
from bench.faults.verdict import Findings, Verdict

# Order first: it marks what failures took back, which the families after it need.
# Each has a partition in memory.
PROCESSES = 4

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


@dataclass
class Checked:
    """What was found in one partition, or in all of them. ``elsewhere``: where values are that may be in any."""

    findings: Findings
    totals: report.Totals = field(default_factory=report.Totals)
    latencies: quiet.Latencies = field(default_factory=dict)
    repeats: pushes.Repeats = field(default_factory=dict)
    elsewhere: list[Event] = field(default_factory=list)

    def add(self, other: Checked) -> None:
        self.findings.join(other.findings)
        self.totals.add(other.totals)
        for group, samples in other.latencies.items():
            self.latencies.setdefault(group, []).extend(samples)
        for place, count in other.repeats.items():
            self.repeats[place] = self.repeats.get(place, 0) + count
        self.elsewhere += other.elsewhere


def _check_partition(context: Context, place: Place, load: Load) -> Checked:
    picture = Picture(context, *place, load())
    checked = Checked(Findings(context.faults))
    for family in FAMILIES:
        family.check(picture, checked.findings)
    pushes.check(picture, checked.findings, checked.repeats)
    quiet.collect_latencies(picture, checked.latencies)
    checked.totals.take(picture)
    floating = {event.val for event in context.floating if event.val is not None}
    checked.elsewhere += [event for event in picture.log.values() if event.val in floating]
    return checked


def _check_all(context: Context, partitions: Partitions) -> Iterator[Checked]:
    """One partition after the other, in as many processes as there are cores, up to PROCESSES."""
    if len(partitions) < 2 or not all(load.is_shared for load in partitions.values()):
        yield from (_check_partition(context, place, load) for place, load in sorted(partitions.items()))
        return
    # Forked, so that each has the context without being sent it; and ends with its partition, whose memory goes too.
    with ProcessPoolExecutor(
        min(PROCESSES, os.cpu_count() or 1), multiprocessing.get_context("fork"), _inherit, (context,),
        max_tasks_per_child=None,
    ) as pool:  # fmt: skip
        yield from pool.map(_check_inherited, *zip(*sorted(partitions.items()), strict=True))


_inherited: list[Context] = []


def _inherit(context: Context) -> None:
    _inherited[:] = [context]


def _check_inherited(place: Place, load: Load) -> Checked:
    checked = _check_partition(_inherited[0], place, load)
    checked.findings.faults = []
    return checked


def _check(context: Context, partitions: Partitions, seed: int, wanted: Wanted) -> Verdict:
    every = Checked(Findings(context.faults))
    for checked in _check_all(context, partitions):
        every.add(checked)
    findings, totals, latencies, repeats = every.findings, every.totals, every.latencies, every.repeats
    _check_elsewhere(every.elsewhere, findings)
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


def _check_elsewhere(events: Iterable[Event], findings: Findings) -> None:
    """I14 over partitions: a publish whose partition nobody was told lies in one of them at most."""
    stored: dict[str, tuple[str, int | None]] = {}
    for event in events:
        assert event.val is not None
        if stored.setdefault(event.val, (event.topic, event.part)) != (event.topic, event.part):
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
