"""The checker finds nothing in a good history, and in every spoiled one what is wrong, by the invariant for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.faults import report
from bench.faults.checker import Wanted, check_directory, check_events
from bench.faults.delivery import Delivery, take_back_followers
from bench.faults.good import good_history
from bench.faults.history import NEVER, SECOND, Event, Recorder, completed, read_lines
from bench.faults.mutations import MUTATIONS, Copy, Mutation
from bench.faults.verdict import INVARIANTS, MAX_WITNESSES

SEED = 7
LEASE = 3 * SECOND


@pytest.fixture(scope="module")
def good() -> list[Event]:
    return good_history(SEED)


@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
def test_a_good_history_is_valid(seed: int) -> None:
    verdict = check_events(good_history(seed), seed=seed)

    assert verdict.passed, report.text(verdict)
    assert not verdict.findings.undecided


def test_the_good_history_has_everything_that_can_go_wrong(good: list[Event]) -> None:
    seen = {f"{event.f}.{event.type}" for event in good}

    wanted = {"publish.info", "publish.fail", "pull.info", "ack.fail", "nack.ok", "discard.ok", "extend.ok"}
    assert wanted | {"seek.ok", "redrive.ok", "dlq.ok", "fault.ok", "quiesce.ok"} <= seen


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.invariant}-{mutation.name}")
def test_every_mutation_is_caught_by_its_invariant(mutation: Mutation, good: list[Event]) -> None:
    spoiled = Copy(good, SEED)
    mutation.apply(spoiled)

    verdict = check_events(spoiled.events)

    assert verdict.outcome == "invalid"
    assert mutation.invariant in verdict.findings.invariants(), report.text(verdict)


def test_every_invariant_has_a_mutation() -> None:
    assert {mutation.invariant for mutation in MUTATIONS} == set(INVARIANTS)
    assert len(MUTATIONS) >= 30


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        (lambda e: e.f == "publish" and e.type == "ok", "no publish was acknowledged"),
        (lambda e: e.f == "ack", "no delivery was acknowledged"),
        (lambda e: e.f == "fault", "no fault fired"),
        (lambda e: e.f == "quiesce", "there was no drain"),
        (lambda e: e.f == "audit", "no partition was audited at the end"),
        (lambda e: e.f == "audit" and e.part == 1, "partitions were audited at the end"),
    ],
)
def test_a_run_that_shows_nothing_does_not_pass(
    missing: Callable[[Event], bool], reason: str, good: list[Event]
) -> None:
    verdict = check_events(event for event in Copy(good, SEED).events if not missing(event))

    assert not verdict.passed
    assert any(reason in given for given in verdict.reasons)


def test_a_purge_that_was_carried_out_by_halves_is_found(good: list[Event]) -> None:
    torn = Event(f="torn", topic="scrap", val="a purge left 3 of 12 messages")

    verdict = check_events([*Copy(good, SEED).events, torn])

    assert verdict.findings.counts == {("I17", "torn"): 1}


def test_a_run_that_saw_too_little_is_unknown(good: list[Event]) -> None:
    verdict = check_events(Copy(good, SEED).events, wanted=Wanted(messages=1_000_000, faults=300))

    assert verdict.outcome == "unknown"
    assert len(verdict.reasons) == 2


def test_an_empty_history_is_unknown() -> None:
    assert check_events([]).outcome == "unknown"


def test_a_history_on_disk_gets_the_same_verdict_as_in_memory(
    good: list[Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two files; what a tail read stays in one of them, whose order is the reader's.
    for number in range(2):
        recorder = Recorder(tmp_path, f"process-{number}")
        for at, event in enumerate(Copy(good, SEED).events):
            if (event.f == "read" or at % 2 == 0) == (number == 0):
                recorder.complete([event], event.type)
        recorder.close()

    disk, memory = check_directory(tmp_path), check_events(Copy(good, SEED).events)

    assert disk.passed, report.text(disk)
    assert disk.report == memory.report


def test_witnesses_are_bounded_and_counted(good: list[Event]) -> None:
    spoiled = Copy(good, SEED)
    for event in spoiled.all("deliver", group="any"):
        event.sha = "0123456789abcdef"

    verdict = check_events(spoiled.events)

    assert verdict.findings.counts["I20", "corruption"] > MAX_WITNESSES
    assert len(verdict.findings.witnesses) == MAX_WITNESSES
    assert "VIOLATION    I20 corruption" in report.text(verdict)


def test_a_witness_names_the_fault_of_its_moment(good: list[Event]) -> None:
    spoiled = Copy(good, SEED)
    fault = spoiled.all("fault")[3]
    within = [e for e in spoiled.all("deliver") if fault.t0 <= e.t0 and e.t1 <= fault.t1]
    within[0].sha = "0123456789abcdef"

    (witness,) = [w for w in check_events(spoiled.events).findings.witnesses if w.invariant == "I20"]

    assert fault.val in witness.faults


def test_an_operation_without_an_answer_is_of_unknown_outcome(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "killed")
    answered, open_ = Event(f="publish", val="w1-1"), Event(f="publish", val="w1-2")
    recorder.invoke([answered, open_])
    recorder.complete([answered], "ok")
    recorder.flush()
    with recorder.path.open("ab") as file:
        file.write(b'{"f":"publish","val":"cut off by a ki')

    events = list(completed(read_lines(recorder.path)))
    recorder.close()

    assert [(event.val, event.type) for event in events] == [("w1-1", "ok"), ("w1-2", "info")]
    assert events[0].t0 < events[0].t1 < events[1].t1


def test_a_nack_nobody_answered_leaves_the_end_of_the_lease_as_the_failure_that_took_followers_back() -> None:
    """Seed 7: k:1 was nacked into a dead connection; its lease ended before k:2's, which was held as attempt 1."""
    first, second = (
        Delivery(Event(f="deliver", off=offset, att=1), offset, claimed, claimed + LEASE, claimed + LEASE)
        for offset, claimed in ((1, 0), (2, SECOND))
    )
    first.settle(Event(f="nack", type="info", t0=SECOND // 10, t1=SECOND // 5))
    take_back_followers([first, second])
    assert second.taken == first.expires_lo
    answered = Delivery(first.event, 1, 0, LEASE, LEASE)
    answered.settle(Event(f="nack", type="ok", t0=SECOND // 10, t1=SECOND // 5))
    second.taken = NEVER
    take_back_followers([answered, second])
    assert second.taken == NEVER


def test_an_extension_nobody_answered_may_be_carried_out_after_one_that_was_answered() -> None:
    """Seed 8: an extension was given up while its replica had lost the database; the same was asked again and answered
    at 2.2 s, and an ack at 2.8 s was still accepted."""
    delivery = Delivery(Event(f="deliver", off=1, att=1), 1, 0, LEASE, LEASE)
    delivery.settle(Event(f="extend", type="info", t0=SECOND // 2, t1=2 * SECOND, ms=500))
    delivery.settle(Event(f="extend", type="ok", t0=2 * SECOND, t1=9 * SECOND // 4, ms=60_000))
    assert delivery.expires_lo == 2 * SECOND + SECOND // 2
    assert delivery.expires_hi >= 9 * SECOND // 4 + 60 * SECOND
    shorter = Delivery(delivery.event, 1, 0, LEASE, LEASE)
    shorter.settle(Event(f="extend", type="info", t0=SECOND // 2, t1=2 * SECOND, ms=60_000))
    shorter.settle(Event(f="extend", type="ok", t0=2 * SECOND, t1=9 * SECOND // 4, ms=500))
    assert shorter.expires_lo == 2 * SECOND + SECOND // 2
    assert shorter.expires_hi >= 62 * SECOND
    alone = Delivery(delivery.event, 1, 0, LEASE, LEASE)
    alone.settle(Event(f="extend", type="ok", t0=2 * SECOND, t1=9 * SECOND // 4, ms=500))
    assert (alone.expires_lo, alone.expires_hi) == (5 * SECOND // 2, 11 * SECOND // 4)
