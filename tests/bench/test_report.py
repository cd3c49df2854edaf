"""The table says what was measured: medians, ratios of the same rounds, what is missing and what is not durable."""

from __future__ import annotations

from typing import Any

from bench.peers.report import Summary, lines, page
from bench.peers.scenarios import SCENARIOS
from bench.report import Result

BATCH = next(each for each in SCENARIOS if each.name == "batch-100")


def rates(*values: float, busy: float = 0.3) -> list[Result]:
    return [{"rate": value, "busy": busy, "bytes": 320.0} for value in values]


def peer(title: str, *, durable: bool = True, lacks: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"title": title, "version": "1", "durable": durable, "copies": False, "durability": "so", "lacks": lacks}


def document(**results: list[Result]) -> dict[str, Any]:
    return {
        "command": "make bench", "date": "2026-01-01", "machine": "one", "seconds": 1.0, "rounds": 3, "size": 300,
        "load_average": [0.1, 0.2], "floors": {"fsyncs": 3000.0}, "missing": {"nats": "NATS: not here"},
        "failures": [], "results": {"batch-100": results},
        "peers": {"logpost": peer("Logpost"), "redis": peer("Redis"), "loose": peer("Loose", durable=False)},
    }  # fmt: skip


def test_a_ratio_is_the_median_of_the_rounds_ratios_and_not_of_the_medians() -> None:
    summary = Summary(document(logpost=rates(100, 10, 1000), redis=rates(50, 20, 300)))
    assert summary.median(BATCH, "redis") == 50
    assert summary.ratio(BATCH, "redis") == 0.5
    assert summary.cell(BATCH, "redis") == "50 (20 to 300) 0.50x"


def test_a_client_that_was_the_bottleneck_is_marked() -> None:
    summary = Summary(document(logpost=rates(100), redis=rates(50, busy=0.95)))
    assert summary.cell(BATCH, "redis").endswith("‡")
    assert not summary.cell(BATCH, "logpost").endswith("‡")


def test_what_a_peer_lacks_and_what_failed_are_told_apart() -> None:
    found = document(logpost=rates(100))
    found["peers"]["redis"]["lacks"] = ["batch-100"]
    assert Summary(found).cell(BATCH, "redis") == "-"
    assert Summary(found).cell(BATCH, "loose") == "failed"


def test_the_page_names_what_is_missing_and_what_is_not_durable() -> None:
    text = page(document(logpost=rates(100), redis=rates(50), loose=rates(900)), "")
    assert "Not measured: NATS: not here." in text
    assert "Loose (not durable)" in text
    assert "| fsyncs | 3,000 |" in text


def test_a_target_is_held_against_durable_peers_only() -> None:
    found = document(logpost=rates(100), redis=rates(50), loose=rates(900))
    (line,) = lines(found)
    assert line.ratio == 2
    assert line.holds
    found["peers"]["redis"]["durable"] = False
    assert lines(found) == []
