"""The page of the peers: a table, a plot, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bench.peers.peer import Peer
from bench.report import machine

RESULTS = Path(__file__).parents[1] / "results"
OURS = "logpost"


@dataclass(frozen=True, slots=True)
class Table:
    """``found``: by scenario and peer, with ``rate``, ``rates`` and ``busy``."""

    scenarios: Sequence[str]
    peers: Mapping[str, Peer]
    found: Mapping[tuple[str, str], Any]

    def rate(self, scenario: str, peer: str) -> float | None:
        one = self.found.get((scenario, peer))
        return None if one is None else one.rate

    def ratio(self, scenario: str) -> float | None:
        """Ours to the best durable peer's that is not ours."""
        others = [
            rate
            for name, peer in self.peers.items()
            if not name.startswith(OURS) and peer.durable and (rate := self.rate(scenario, name)) is not None
        ]
        ours = self.rate(scenario, OURS)
        return None if ours is None or not others else ours / max(others)


def write(measured: Table, sizes: Mapping[str, float], skipped: Mapping[str, str], command: str) -> None:
    """bench/results/peers.md, peers.json and, where matplotlib is, peers.png."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.md").write_text("\n".join(_page(measured, sizes, skipped, command)) + "\n")
    rates = {
        scenario: {name: measured.found[scenario, name].rates for name in measured.peers
                   if (scenario, name) in measured.found}
        for scenario in measured.scenarios
    }  # fmt: skip
    document = {"date": datetime.now(UTC).date().isoformat(), "command": command, "rates": rates, "bytes": dict(sizes)}
    (RESULTS / "peers.json").write_text(json.dumps(document, indent=1) + "\n")
    _plot(measured)


def _page(measured: Table, sizes: Mapping[str, float], skipped: Mapping[str, str], command: str) -> list[str]:
    names = list(measured.peers)
    today = datetime.now(UTC).date().isoformat()
    circumstances = (
        f"`{command}` on {today}: {machine()}. Messages a second, medians of rounds taken in turn, 300 bytes each; "
        f"load average at the end {psutil.getloadavg()[0]:.1f}. The last column is Logpost to the best durable peer. "
        "A star: the generator used more than nine tenths of its core and may be what was measured."
    )
    lines = [
        "# Beside what a user would pick instead", "", circumstances, "",
        "| | " + " | ".join(measured.peers[name].title for name in names) + " | ratio |",
        "|---" * (len(names) + 2) + "|",
    ]  # fmt: skip
    for scenario in measured.scenarios:
        cells = [_cell(measured.found.get((scenario, name))) for name in names]
        ratio = measured.ratio(scenario)
        lines.append(f"| {scenario} | " + " | ".join(cells) + f" | {'' if ratio is None else f'{ratio:.2f}'} |")
    lines.append("| bytes on disk for a message | " + " | ".join(f"{sizes[name]:,.0f}" for name in names) + " | |")
    lines += ["", "What an acknowledged publish means:", ""]
    for name in names:
        peer = measured.peers[name]
        kept = "one copy for all groups" if not peer.copies else "a copy for each group"
        lines.append(f"- **{peer.title}** ({peer.version}): {peer.durability}; {kept}.")
    lines += [f"- {title} was skipped: {why}." for title, why in skipped.items()]
    return lines


def _cell(found: Any) -> str:
    return "" if found is None else f"{found.rate:,.0f}{'*' if found.busy > 0.9 else ''}"


def _plot(measured: Table) -> None:
    try:
        import matplotlib as mpl  # noqa: PLC0415
    except ImportError:
        print("matplotlib is not installed: no plot")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(10, 5))
    width = 0.8 / max(len(measured.peers), 1)
    for at, (name, peer) in enumerate(measured.peers.items()):
        rates = [measured.rate(scenario, name) or 0 for scenario in measured.scenarios]
        axes.bar([place + at * width for place in range(len(rates))], rates, width, label=peer.title)
    axes.set_yscale("log")
    axes.set_ylabel("messages a second")
    axes.set_xticks(range(len(measured.scenarios)), measured.scenarios, rotation=30, ha="right", fontsize=7)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULTS / "peers.png", dpi=110)
