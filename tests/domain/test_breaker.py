"""The circuit breaker: a machine of states that replicas share, against a plain model of what it promises."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.domain.breaker import (
    CLOSED,
    FAILURES,
    FIRST_OPEN_MS,
    MAX_OPEN_MS,
    MESSAGES,
    Breaker,
    abandoned,
    decode,
    encode,
    failed,
    permit,
)

PROBE_MS = 30_000
MESSAGE_IDS = st.sampled_from(["msg_1", "msg_2", "msg_3", "msg_4"])


def opened(now: int = 0) -> Breaker:
    breaker = CLOSED
    for number in range(FAILURES):
        breaker = failed(breaker, f"msg_{number}", now)
    return breaker


def test_five_failures_in_a_row_over_three_messages_open_it() -> None:
    breaker = CLOSED
    for message in ("msg_1", "msg_2", "msg_3", "msg_1"):
        breaker = failed(breaker, message, 0)
        assert breaker.state(0) == "closed"
    assert failed(breaker, "msg_1", 0).state(0) == "open"


def test_one_poison_message_never_opens_it() -> None:
    breaker = CLOSED
    for _ in range(1000):
        breaker = failed(breaker, "msg_poison", 0)
    breaker = failed(breaker, "msg_other", 0)
    assert breaker.state(0) == "closed"
    assert failed(breaker, "msg_third", 0).state(0) == "open"


def test_it_opens_for_a_second_doubling_to_a_minute() -> None:
    now, breaker = 0, opened()
    times = []
    for _ in range(9):
        times.append(breaker.wait_ms(now))
        now += breaker.wait_ms(now)
        breaker, allowed = permit(breaker, "msg_probe", now, probe_ms=PROBE_MS)
        assert allowed
        breaker = failed(breaker, "msg_probe", now)
    assert times == [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]


def test_one_probe_at_a_time() -> None:
    breaker = opened()
    assert permit(breaker, "msg_9", FIRST_OPEN_MS - 1, probe_ms=PROBE_MS) == (breaker, False)
    breaker, first = permit(breaker, "msg_9", FIRST_OPEN_MS, probe_ms=PROBE_MS)
    after, second = permit(breaker, "msg_8", FIRST_OPEN_MS, probe_ms=PROBE_MS)
    assert (first, second) == (True, False)
    assert after == breaker
    assert breaker.wait_ms(FIRST_OPEN_MS) == PROBE_MS


def test_a_probe_whose_process_died_makes_way_for_another() -> None:
    breaker, _ = permit(opened(), "msg_9", FIRST_OPEN_MS, probe_ms=PROBE_MS)
    breaker, allowed = permit(breaker, "msg_8", FIRST_OPEN_MS + PROBE_MS, probe_ms=PROBE_MS)
    assert allowed
    assert breaker.probe == "msg_8"


def test_a_probe_that_was_throttled_makes_way_for_another_at_once() -> None:
    breaker, _ = permit(opened(), "msg_9", FIRST_OPEN_MS, probe_ms=PROBE_MS)
    assert abandoned(breaker, "msg_8") == breaker
    breaker = abandoned(breaker, "msg_9")
    assert breaker.state(FIRST_OPEN_MS) == "half_open"
    assert permit(breaker, "msg_8", FIRST_OPEN_MS, probe_ms=PROBE_MS)[1]


def test_stragglers_do_not_prolong_it() -> None:
    breaker = opened()
    assert failed(breaker, "msg_1", 500) == breaker
    probing, _ = permit(breaker, "msg_9", FIRST_OPEN_MS, probe_ms=PROBE_MS)
    assert failed(probing, "msg_1", FIRST_OPEN_MS) == probing


def test_a_closed_one_is_an_empty_document() -> None:
    assert encode(CLOSED) == "{}"
    assert decode("{}") == decode(None) == CLOSED


@given(
    st.builds(
        Breaker,
        failures=st.integers(0, FAILURES),
        messages=st.lists(st.text(), max_size=MESSAGES).map(tuple),
        openings=st.integers(0, 100),
        open_until=st.integers(0, 2**53),
        probe=st.none() | st.text(),
        probe_until=st.integers(0, 2**53),
    )
)
def test_the_document_holds_all_of_it(breaker: Breaker) -> None:
    assert decode(encode(breaker)) == breaker


class Endpoint(RuleBasedStateMachine):
    """Replicas that send and report in any order; the model is the list of what was reported."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000
        self.breaker = CLOSED
        self.sent: list[str] = []  # on the way
        self.row: list[str] = []  # the messages of the failures since the last success or opening
        self.opened_at: int | None = None

    @rule(ms=st.integers(0, 70_000))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @rule(message=MESSAGE_IDS)
    def send(self, message: str) -> None:
        wait = self.breaker.wait_ms(self.now)
        state = self.breaker.state(self.now)
        self.breaker, allowed = permit(self.breaker, message, self.now, probe_ms=PROBE_MS)
        assert allowed == (wait == 0)
        assert not (allowed and state == "open")
        if allowed:
            self.sent.append(message)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        self.sent.remove(data.draw(st.sampled_from(self.sent)))
        self.breaker = CLOSED
        self.row = []
        assert permit(self.breaker, "msg_any", self.now, probe_ms=PROBE_MS)[1]

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.sent))
        self.sent.remove(message)
        was_closed = self.breaker.state(self.now) == "closed"
        self.breaker = failed(self.breaker, message, self.now)
        if not was_closed:
            return
        self.row.append(message)
        must_open = len(self.row) >= FAILURES and len(set(self.row)) >= MESSAGES
        assert (self.breaker.state(self.now) == "open") == must_open
        if must_open:
            self.row = []

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def come_back_untried(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self.sent))
        self.sent.remove(message)
        self.breaker = abandoned(self.breaker, message)

    @rule()
    def another_replica_reads_it(self) -> None:
        self.breaker = decode(encode(self.breaker))

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        wait = self.breaker.wait_ms(self.now)
        assert wait <= max(MAX_OPEN_MS, PROBE_MS)
        assert permit(self.breaker, "msg_any", self.now + wait, probe_ms=PROBE_MS)[1]


TestEndpoint = Endpoint.TestCase
TestEndpoint.settings = settings(max_examples=100, stateful_step_count=40)
