"""What the checker makes of pushes and streams, whose leases no client sees."""

from __future__ import annotations

from typing import Any

import pytest

from bench.faults.checker import check_events
from bench.faults.history import MS, NEVER, SECOND, Event

START = 1000 * SECOND
RULES = {"ordering": "key", "maxAttempts": 4, "ackTimeoutMs": 3000, "strategy": "fixed", "baseDelay": 100}
PUSHED = {**RULES, "maxDelay": 1000, "maxInFlight": 1, "keys": ["k"]}
PULLED = {**RULES, "maxDelay": 1000}


def at(seconds: float) -> int:
    return START + round(seconds * SECOND)


def deliver(seconds: float, att: int = 1, **values: Any) -> Event:
    given: dict[str, Any] = {"group": "g", "key": "k", "cons": f"lease {att}", "tok": f"ack_{seconds}", "epoch": 1}
    given |= {"t0": at(seconds), "t1": at(seconds), **values}
    return Event(f="deliver", topic="t", part=0, off=1, val="w-1", att=att, **given)


def settle(f: str, seconds: float, tok: float, type_: str = "ok") -> Event:
    return Event(f=f, type=type_, topic="t", group="g", part=0, tok=f"ack_{tok}", t0=at(seconds), t1=at(seconds) + MS)


def fault(begin: float, end: float) -> Event:
    return Event(f="fault", topic="t", val="kill replica", t0=at(begin), t1=at(end))


def found(rules: dict[str, Any], *events: Event, key: str = "k") -> set[tuple[str, str]]:
    """What is wrong with the deliveries of one message, apart from what the history leaves out."""
    told = [
        Event(f="topic", topic="t", data={"partitions": 1}),
        Event(f="group", topic="t", group="g", data=rules),
        Event(f="publish", topic="t", part=0, off=1, val="w-1", key=key, t0=START, t1=at(0.01)),
    ]
    return set(check_events([*told, *events]).findings.counts)


def test_a_push_that_was_answered_comes_again_only_after_a_fault() -> None:
    pushes = [deliver(20), settle("ack", 20.1, 20), deliver(23, 2), settle("ack", 23.1, 23)]

    assert found(PUSHED, *pushes, fault(1, 2)) == {("I12", "acknowledged redelivered")}
    assert not found(PUSHED, *pushes, fault(19, 20.05))
    assert not found(PUSHED, *pushes, fault(20.9, 22))  # before it was settled
    assert found(PUSHED, *pushes, fault(21.2, 22)) == {("I12", "acknowledged redelivered")}


def test_a_machine_that_stands_still_is_as_good_as_a_fault_to_a_push() -> None:
    pushes = [deliver(20), settle("ack", 20.1, 20), deliver(23, 2), settle("ack", 23.1, 23)]

    def elsewhere(seconds: float, begin: float = 20.2) -> Event:
        return Event(f="ack", topic="t", group="other", part=0, tok="other", t0=at(begin), t1=at(begin + seconds))

    assert ("I12", "acknowledged redelivered") in found(PUSHED, *pushes, elsewhere(0.9))
    assert not found(PUSHED, *pushes, elsewhere(1.1))
    assert ("I12", "acknowledged redelivered") in found(PUSHED, *pushes, elsewhere(1.1, begin=10))


def test_a_settle_without_an_end_excuses_no_push() -> None:
    pushes = [deliver(20), settle("ack", 20.1, 20), deliver(23, 2), settle("ack", 23.1, 23)]
    open_end = Event(f="ack", type="info", topic="t", group="other", part=0, tok="other", t0=at(10), t1=NEVER)

    assert ("I12", "acknowledged redelivered") in found(PUSHED, *pushes, open_end)


def test_a_fault_explains_no_more_repeats_than_were_under_way() -> None:
    pushes = [deliver(20), settle("ack", 20.1, 20), deliver(21, 2), settle("ack", 21.1, 21), deliver(22, 3)]

    assert found(PUSHED, *pushes, fault(19, 22)) == {("I12", "redelivered too often")}


@pytest.mark.parametrize(("second", "kind"), [(1, "attempt not counted"), (3, "attempts burned")])
def test_without_a_fault_the_attempts_of_a_push_count_up_by_one(second: int, kind: str) -> None:
    pushes = [deliver(20), settle("nack", 20.1, 20), deliver(21, second, tok="ack_21")]

    assert found(PUSHED, *pushes) == {("I13", kind)}
    assert not found(PUSHED, *pushes, fault(20, 21))
    assert not found(PUSHED, pushes[0], pushes[1], deliver(21, 2))


def test_a_group_is_given_nothing_that_its_filter_refuses() -> None:
    assert found(PUSHED, deliver(20, key="other"), key="other") == {("I2", "filtered out")}


def streamed(seconds: float, att: int, cons: str) -> Event:
    return deliver(seconds, att, cons=cons, exp=at(seconds + 2), ms=2000)


def test_what_a_stream_had_goes_back_when_it_ends_and_not_before() -> None:
    first, second = streamed(20, 1, "one"), streamed(20.5, 1, "two")
    end = Event(f="stream", topic="t", group="g", cons="one", t0=at(20.2), t1=at(20.3))

    assert ("I8", "concurrent in-flight") in found(PULLED, first, second)
    assert not found(PULLED, first, second, end)


def test_a_stream_renews_its_leases_and_its_deliveries_can_be_acked_after_the_first_of_them() -> None:
    renewed = found(PULLED, streamed(20, 1, "one"), settle("ack", 22.5, 20))
    pulled = found(PULLED, deliver(20, exp=at(20 + 3)), settle("ack", 23.5, 20))

    assert not renewed
    assert pulled == {("I9", "late settle")}


def test_what_a_stream_claimed_at_once_is_in_its_hands_though_it_came_in_two_parts() -> None:
    """Seed 7: the first part was nacked before the second came, and each had its own reading of one deadline."""
    told = [
        Event(f="publish", topic="t", part=0, off=off, val=f"w-{off}", key="k", t0=START, t1=at(0.01)) for off in (1, 2)
    ]
    first, second = streamed(20, 1, "one"), streamed(20.4, 1, "one")
    first.tok, second.tok, second.off, second.val = "ack_g_7_1_1", "ack_g_7_1_2", 2, "w-2"
    second.t0, second.exp = at(20), (first.exp or 0) - MS
    nack = Event(f="nack", topic="t", group="g", part=0, tok=first.tok, t0=at(20.1), t1=at(20.2))
    assert not found(PULLED, *told[1:], first, nack, second)
