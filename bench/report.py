"""What a benchmark found: lines of a table, and the page they go to."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil

HERE = Path(__file__).parent
Result = dict[str, float]  # what a load generator found


@dataclass(frozen=True, slots=True)
class Line:
    """``value`` of ``what``; where there is a target, ``ratio`` is what has to reach it (``at_most``: stay below)."""

    what: str
    value: str
    ratio: float | None = None
    target: float | None = None
    at_most: bool = False

    @property
    def holds(self) -> bool | None:
        if self.ratio is None or self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def row(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        target = "" if self.target is None else f"{'≤' if self.at_most else '≥'} {self.target:g}"
        holds = {None: "", True: "yes", False: "**no**"}[self.holds]
        return f"| {self.what} | {self.value} | {ratio} | {target} | {holds} |"


def per_second(count: float) -> str:
    return f"{count:,.0f}/s"


def percentiles(seconds: list[float]) -> Result:
    """Milliseconds."""
    ordered = sorted(seconds) or [0.0]
    return {
        name: ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1000
        for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999))
    }


def side_by_side(rounds: int, measured: Callable[[], float], beside: Callable[[], float]) -> tuple[float, float]:
    """Medians of both, taken turn by turn: the machine's mood is the same for both."""
    pairs = [(measured(), beside()) for _ in range(rounds)]
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


def machine() -> str:
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    return (
        f"{platform.system()} {platform.release()}, {cores} cores shared by client, server and Postgres, "
        f"{memory:.0f} GiB, Python {platform.python_version()}"
    )


def write(suites: Sequence[tuple[str, Sequence[Line]]], command: str) -> None:
    """bench/RESULTS.md, which ends with bench/NOTES.md, and bench/results.json."""
    today = datetime.now(UTC).date().isoformat()
    circumstances = (
        f"`{command}` on {today}: {machine()}. Durable: fsync on, a 2xx after COMMIT. Ratios are of one run, turn "
        "by turn, because the machine is shared and noisy; absolute numbers are this machine's. Load average at the "
        f"end, with whatever else ran: {psutil.getloadavg()[0]:.1f}."
    )
    text = ["# Results", "", circumstances, ""]
    for title, lines in suites:
        text += [f"## {title}", "", "| what | value | ratio | target | holds |", "|---|---|---|---|---|"]
        text += [*(line.row() for line in lines), ""]
    (HERE / "RESULTS.md").write_text("\n".join(text) + "\n" + (HERE / "NOTES.md").read_text())
    found = {title: [asdict(line) for line in lines] for title, lines in suites}
    (HERE / "results.json").write_text(
        json.dumps({"date": today, "command": command, "suites": found}, indent=1) + "\n"
    )


def show(title: str, lines: Iterable[Line]) -> None:
    print(f"\n{title}")
    for line in lines:
        print("  " + line.row())
