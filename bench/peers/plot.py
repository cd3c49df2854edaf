"""A run as bars: a panel for each of the scenarios that matter most."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.peers.report import Summary
    from bench.peers.scenarios import Scenario

PANELS = ("single-64", "batch-100", "consume-batch", "consume-each", "fan-out-20", "delay-200")
OURS, THEIRS, LOOSE, INK = "#1f6feb", "#9aa4b2", "#e3e7ec", "#24292f"


def plot(summary: Summary, path: Path) -> bool:
    """Draws it, if there is anything to draw with."""
    if not importlib.util.find_spec("matplotlib"):
        return False
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    scenarios = [each for each in summary.scenarios if each.name in PANELS]
    columns = min(3, len(scenarios))
    rows = -(-len(scenarios) // columns)
    height = 0.55 + 0.29 * len(summary.peers)
    figure, axes = plt.subplots(rows, columns, figsize=(4.0 * columns, height * rows + 0.3), squeeze=False)
    panels = [panel for row in axes for panel in row]
    for n, panel in enumerate(panels):
        if n < len(scenarios):
            draw(panel, summary, scenarios[n], labelled=n % columns == 0)
        else:
            panel.axis("off")
    figure.tight_layout(w_pad=1.5, h_pad=1.2)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def draw(panel: Any, summary: Summary, scenario: Scenario, *, labelled: bool) -> None:
    """Medians, with a line over what the rounds found; delays as p50 with a line up to the p99."""
    peers = list(reversed(summary.peers))
    facts = summary.document["peers"]
    middles = [summary.median(scenario, peer) or 0.0 for peer in peers]
    colours = [OURS if peer.startswith("logpost") else THEIRS if facts[peer]["durable"] else LOOSE for peer in peers]
    panel.barh(range(len(peers)), middles, color=colours, height=0.68)
    for place, (peer, middle) in enumerate(zip(peers, middles, strict=True)):
        figures = summary.figures(scenario, peer)
        if not figures:
            panel.text(0, place, " has none" if scenario.name in facts[peer]["lacks"] else " failed", va="center",
                       fontsize=7.5, color=INK)  # fmt: skip
            continue
        low, high = min(figures), max(figures)
        text = f"{middle:,.0f}"
        if scenario.is_delay:
            low, high = middle, summary.median(scenario, peer, "p99_ms") or middle
            text = f"{middle:.1f} / {high:.1f}"
        panel.plot([low, high], [place, place], color=INK, linewidth=1, solid_capstyle="butt")
        panel.text(max(high, middle), place, f"  {text}", va="center", fontsize=7.5, color=INK)
    panel.set_yticks(range(len(peers)), [facts[peer]["title"] if labelled else "" for peer in peers], fontsize=8)
    panel.set_xlim(0, panel.get_xlim()[1] * 1.22)
    panel.set_xticks([])
    panel.tick_params(length=0)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    unit = "p50 / p99, ms; shorter is better" if scenario.is_delay else "messages/s"
    panel.set_title(f"{scenario.title}\n{unit}", fontsize=8.5, loc="left", color=INK)
