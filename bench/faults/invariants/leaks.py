"""I19: what a process holds does not grow while it works, and is given back when it rests."""

from __future__ import annotations

from collections import defaultdict

from bench.faults.context import Context
from bench.faults.history import SECOND
from bench.faults.verdict import Findings

MIB = 1024 * 1024
# A slope is believed when the samples of the last half cover this much; shorter runs only have the ceiling.
SHORTEST = 600 * SECOND
SLOPE_MIB_PER_MINUTE = 1.0
CEILING_MIB = 1024
RETURNS = ("fds", "connections", "tasks")
TOLERATED = 1.05
SPARE = 3  # a keep-alive connection, a connection just opened by a loop

Series = list[tuple[int, int]]


def check(context: Context, findings: Findings) -> None:
    """A process is told from its successor by the pid in its name: ``replica-1/4711``."""
    series: dict[tuple[str, str], Series] = defaultdict(list)
    for sample in sorted(context.samples, key=lambda event: event.t1):
        for process, values in (sample.data or {}).items():
            for name, value in values.items():
                series[process, name].append((sample.t1, value))
    for (process, name), points in series.items():
        if name == "rss":
            _check_memory(process, points, findings)
        elif name in RETURNS:
            _check_returned(context, process, name, points, findings)


def _check_memory(process: str, points: Series, findings: Findings) -> None:
    highest = max(value for _, value in points) / MIB
    if highest > CEILING_MIB:
        findings.add("I19", "too much memory", f"{process} used {highest:.0f} MiB")
    half = points[len(points) // 2 :]
    if len(half) < 10 or half[-1][0] - half[0][0] < SHORTEST:
        return
    slope = slope_per_minute(half) / MIB
    if slope > SLOPE_MIB_PER_MINUTE:
        findings.add("I19", "memory grows", f"{process} grows by {slope:.2f} MiB a minute")


def slope_per_minute(points: Series) -> float:
    """The least squares slope."""
    times = [moment / (60 * SECOND) for moment, _ in points]
    values = [float(value) for _, value in points]
    mean_t, mean_v = sum(times) / len(times), sum(values) / len(values)
    above = sum((t - mean_t) * (v - mean_v) for t, v in zip(times, values, strict=True))
    below = sum((t - mean_t) ** 2 for t in times)
    return above / below if below else 0.0


def _check_returned(context: Context, process: str, name: str, points: Series, findings: Findings) -> None:
    """The last sample after the drain against the most that was seen in quiet before it: the first third's median."""
    rest = max((quiesce.t1 for quiesce in context.quiesces), default=0)
    after = [value for moment, value in points if rest and moment >= rest]
    before = sorted(value for moment, value in points if not rest or moment < rest)
    if not after or len(before) < 10:
        return
    baseline = before[len(before) // 2]
    if min(after) > baseline * TOLERATED + SPARE:
        findings.add("I19", "not given back", f"{process} has {min(after)} {name} at rest, {baseline} usually")
