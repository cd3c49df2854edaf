"""What a run found, as a table, as lines with targets, and as files in bench/results/."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from bench.peers.rounds import Found
from bench.peers.scenarios import SCENARIOS, Scenario
from bench.report import Line, per_second

RESULTS = Path(__file__).parents[1] / "results"
OURS = "logpost"
SATURATED = 0.9  # a client that used so much of its core may be what was measured


class Summary:
    """Medians over the rounds of a document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.peers: list[str] = list(document["peers"])
        self.scenarios = [each for each in SCENARIOS if each.name in document["results"]]

    def figures(self, scenario: Scenario, peer: str, name: str = "") -> list[float]:
        """A figure of each round; by default the one that stands in the table."""
        found = self.document["results"].get(scenario.name, {}).get(peer, [])
        return [each[name or scenario.figure] for each in found]

    def median(self, scenario: Scenario, peer: str, name: str = "") -> float | None:
        figures = self.figures(scenario, peer, name)
        return median(figures) if figures else None

    def ratio(self, scenario: Scenario, peer: str) -> float | None:
        """To Logpost, round by round, and the median of that."""
        pairs = zip(self.figures(scenario, peer), self.figures(scenario, OURS), strict=False)
        ratios = [theirs / ours for theirs, ours in pairs if ours]
        return median(ratios) if ratios else None

    def cell(self, scenario: Scenario, peer: str) -> str:
        """``81,000 (76,000 to 85,000) 0.55x``; for a delay ``p50 / p99 / p99.9``."""
        if scenario.name in self.document["peers"][peer]["lacks"]:
            return "-"
        figures = self.figures(scenario, peer)
        if not figures:
            return "failed"
        if scenario.is_delay:
            text = " / ".join(f"{self.median(scenario, peer, name):.1f}" for name in ("p50_ms", "p99_ms", "p999_ms"))
        else:
            text = f"{median(figures):,.0f}"
            text += f" ({min(figures):,.0f} to {max(figures):,.0f})" if len(figures) > 1 else ""
        ratio = self.ratio(scenario, peer)
        text += f" {ratio:.2f}x" if ratio is not None and peer != OURS else ""
        return text + (" ‡" if max(self.figures(scenario, peer, "busy")) > SATURATED else "")


def table(summary: Summary, scenarios: Iterable[Scenario], peers: Iterable[str]) -> list[str]:
    """A row for each scenario. Delays are in milliseconds, the rest is messages a second."""
    shown = list(peers)
    titles = [summary.document["peers"][peer] for peer in shown]
    head = " | ".join(f"{each['title']}{'' if each['durable'] else ' (not durable)'}" for each in titles)
    lines = [f"| | {head} |", "|---" * (len(shown) + 1) + "|"]
    for scenario in scenarios:
        title = scenario.title + (" (p50 / p99 / p99.9, ms)" if scenario.is_delay else "")
        lines.append(f"| {title} | {' | '.join(summary.cell(scenario, peer) for peer in shown)} |")
    for scenario in [each for each in summary.scenarios if each.name == "batch-100"]:
        sizes = [summary.median(scenario, peer, "bytes") for peer in shown]
        cells = " | ".join(f"{each:,.0f}" if each else "-" for each in sizes)
        lines.append(f"| bytes on disk for a message of {summary.document['size']} | {cells} |")
    return lines


def page(document: dict[str, Any], picture: str) -> str:
    """The Markdown of a run."""
    summary = Summary(document)
    before, after = document["load_average"][0], document["load_average"][-1]
    rounds = document["rounds"]
    counted = (
        "One round, so no spread is known, and a ratio is of two single figures" if rounds == 1 else f"{rounds} rounds"
    )
    circumstances = (
        f"`{document['command']}` on {document['date']}: {document['machine']}. {counted}; "
        f"{document['seconds']:g} s for each figure, peer after peer; messages of {document['size']} bytes. Medians of "
        "messages a second, their spread, and the ratio to Logpost with one worker. Load average before "
        f"{before:.1f} and at the end {after:.1f}; on a machine that does other work too, not even the ratios are firm."
    )
    text = ["# Logpost and what you might pick instead", "", circumstances, ""]
    text += [*table(summary, summary.scenarios, summary.peers), ""]
    text += ["‡ The client used more than 90 % of its core: it may be what was measured.", ""]
    if picture:
        text += [f"![The same as bars]({picture})", ""]
    text += ["## What an acknowledgement means", "", "| | version | on the disk | how |", "|---|---|---|---|"]
    for each in document["peers"].values():
        durable = "yes" if each["durable"] else "**no**"
        text.append(f"| {each['title']} | {each['version']} | {durable} | {each['durability']} |")
    text += ["", *(f"Not measured: {each}." for each in document["missing"].values())]
    text += [f"Failed: {each}" for each in document["failures"]]
    text += ["", "## Floors and ceilings, in the same minutes", "", "| what | a second |", "|---|---|"]
    text += [f"| {what} | {rate:,.0f} |" for what, rate in document["floors"].items()]
    return "\n".join(text) + "\n"


def lines(document: dict[str, Any]) -> list[Line]:
    """Our targets: against peers that are as durable as we are."""
    summary = Summary(document)
    found = []
    for name, rivals, target in (
        ("batch-100", ("nats", "rabbitmq", "pgmq"), 2.0),
        ("batch-100", ("redis",), 1.0),
        ("consume-batch", ("redis", "nats", "rabbitmq", "pgmq", "skip-locked"), 2.0),
        ("single-64", ("nats", "rabbitmq"), 1.5),
        ("single-64", ("redis",), None),
    ):
        scenario = next(each for each in SCENARIOS if each.name == name)
        durable = [peer for peer in rivals if peer in summary.peers and document["peers"][peer]["durable"]]
        rates = {peer: rate for peer in durable if (rate := summary.median(scenario, peer))}
        ours = summary.median(scenario, OURS)
        if rates and ours:
            best = max(rates, key=rates.__getitem__)
            ratio = 1 / (summary.ratio(scenario, best) or 1)
            title = document["peers"][best]["title"]
            of = title if len(rivals) == 1 else f"{title}, the best of {len(rates)}"
            found.append(Line(f"{scenario.title}: of {of}", f"{per_second(ours)} of {per_second(rates[best])}",
                              ratio, target))  # fmt: skip
    return found + fan_out(summary)


def fan_out(summary: Summary) -> list[Line]:
    one, many = (next(each for each in SCENARIOS if each.name == name) for name in ("batch-100", "fan-out-20"))
    alone, shared = summary.median(one, OURS), summary.median(many, OURS)
    if not alone or not shared:
        return []
    return [Line("batches of 100 for 20 groups, of for one", f"{per_second(shared)} of {per_second(alone)}",
                 shared / alone, 0.8)]  # fmt: skip


def write(found: Found, name: str) -> Path:
    """NAME.json, NAME.md and, where matplotlib is, NAME.png in bench/results/; returns the page."""
    from bench.peers.plot import plot  # noqa: PLC0415

    RESULTS.mkdir(exist_ok=True)
    document = found.document()
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    drawn = plot(Summary(document), RESULTS / f"{name}.png")
    target = RESULTS / f"{name}.md"
    target.write_text(page(document, f"{name}.png" if drawn else ""))
    return target
