"""Answer → Outcome: the table of the push contract, for every status and header there can be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.outcome import (
    DEFAULT_THROTTLE_MS,
    MAX_EXCERPT_BYTES,
    MAX_RETRY_AFTER_MS,
    MIN_THROTTLE_MS,
    Ack,
    Action,
    Answer,
    Discard,
    ErrorClass,
    Nack,
    Pause,
    Taken,
    Throttle,
    action_of,
    excerpt_of,
    judge,
    retry_after_ms,
)

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
STATUSES = st.sampled_from([200, 302, 410, 429, 500, 503]) | st.integers(100, 999)
DELAYS = st.none() | st.integers(0, MAX_RETRY_AFTER_MS)


@given(status=st.integers(200, 299), excerpt=st.none() | st.text(), delay=DELAYS)
def test_a_2xx_acks_or_is_taken_whatever_else_it_says(status: int, excerpt: str | None, delay: int | None) -> None:
    answer = Answer(status=status, excerpt=excerpt, retry_after_ms=delay)
    assert judge(answer) == Ack()
    assert judge(answer, manual=True) == Taken()
    assert answer.healthy is True


@given(status=STATUSES.filter(lambda status: status // 100 != 2), delay=DELAYS, manual=st.booleans())
def test_no_other_status_settles_anything(status: int, delay: int | None, manual: bool) -> None:
    answer = Answer(status=status, error_class="status", retry_after_ms=delay)
    outcome = judge(answer, manual=manual)
    if status == 410:
        assert isinstance(outcome, Pause)
        assert "410" in outcome.reason
    elif status == 429:
        assert outcome == Throttle(DEFAULT_THROTTLE_MS if delay is None else max(MIN_THROTTLE_MS, delay))
    elif status == 503 and delay is not None:
        assert outcome == Throttle(max(MIN_THROTTLE_MS, delay))
    else:
        assert outcome == Nack(f"the endpoint answered {status}", delay)
    # The breaker counts exactly what uses an attempt.
    assert (answer.healthy is False) == isinstance(outcome, Nack)


@given(action=st.sampled_from(get_args(Action)), status=STATUSES, manual=st.booleans())
def test_the_action_header_wins_over_the_status(action: Action, status: int, manual: bool) -> None:
    answer = Answer(status=status, action=action, excerpt="because")
    outcome = judge(answer, manual=manual)
    expected = {"ack": Ack, "nack": Nack, "discard": Discard, "pause": Pause}
    assert isinstance(outcome, expected[action])
    assert answer.healthy is True
    if isinstance(outcome, Discard):
        assert outcome.reason == "because"


@given(error_class=st.sampled_from(get_args(ErrorClass)), manual=st.booleans())
def test_no_answer_uses_one_attempt(error_class: ErrorClass, manual: bool) -> None:
    answer = Answer(error_class=error_class, error="it went wrong")
    assert judge(answer, manual=manual) == Nack("it went wrong")
    assert answer.healthy is False


@pytest.mark.parametrize(
    ("value", "action"),
    [("ack", "ack"), (" Discard\t", "discard"), ("PAUSE", "pause"), ("nack", "nack"), ("", None), (None, None),
     ("retry", None), ("ack, nack", None), ("ack\x00", None)],
)  # fmt: skip
def test_an_action_we_do_not_know_leaves_it_to_the_status(value: str | None, action: str | None) -> None:
    assert action_of(value) == action


@given(st.integers(0, 10**12))
def test_retry_after_in_seconds_is_honoured_up_to_a_day(seconds: int) -> None:
    assert retry_after_ms({"Retry-After": f" {seconds} "}, NOW) == min(seconds * 1000, MAX_RETRY_AFTER_MS)


@given(seconds=st.integers(-(10**6), 10**6), skew=st.integers(-(10**6), 10**6))
def test_a_retry_after_date_counts_from_the_date_beside_it(seconds: int, skew: int) -> None:
    then = NOW + timedelta(seconds=skew)
    headers = {
        "Date": format_datetime(then, usegmt=True),
        "Retry-After": format_datetime(then + timedelta(seconds=seconds), usegmt=True),
    }
    assert retry_after_ms(headers, NOW) == max(0, min(seconds * 1000, MAX_RETRY_AFTER_MS))


@pytest.mark.parametrize(
    "date", ["Wed, 25 Nov 2026 12:01:00 GMT", "Wednesday, 25-Nov-26 12:01:00 GMT", "Wed Nov 25 12:01:00 2026"]
)
def test_all_three_forms_of_a_date_are_read(date: str) -> None:
    assert retry_after_ms({"Retry-After": date}, NOW) == 60_000


@given(st.text(max_size=60))
def test_any_other_retry_after_is_ignored_not_an_error(value: str) -> None:
    delay = retry_after_ms({"Retry-After": value}, NOW)
    assert delay is None or 0 <= delay <= MAX_RETRY_AFTER_MS


@pytest.mark.parametrize("value", ["-1", "1.5", "soon", "", "1e9", "٣", "9" * 1_000_000 + "x"])
def test_what_is_neither_seconds_nor_a_date_is_no_delay(value: str) -> None:
    assert retry_after_ms({"Retry-After": value}, NOW) is None


def test_a_number_of_a_million_digits_is_a_day() -> None:
    assert retry_after_ms({"Retry-After": "9" * 1_000_000}, NOW) == MAX_RETRY_AFTER_MS


@given(st.binary(max_size=6000))
def test_an_excerpt_is_short_storable_text(body: bytes) -> None:
    excerpt = excerpt_of(body)
    assert (excerpt is None) == (body == b"")
    if excerpt is not None:
        assert len(excerpt.encode()) <= MAX_EXCERPT_BYTES
        assert not any(ord(char) < 32 and char not in "\n\t" for char in excerpt)
        assert "\x7f" not in excerpt


def test_an_excerpt_keeps_what_people_can_read() -> None:
    assert excerpt_of("Zürich:\n\t€ 😀".encode()) == "Zürich:\n\t€ 😀"
    assert excerpt_of(b"\xff\x00\x1b[2J") == "\\xff\\x00\\x1b[2J"
    assert excerpt_of("\u202egnp.exe".encode()) == "\\u202egnp.exe"
    assert excerpt_of(b"x" * 10_000) == "x" * MAX_EXCERPT_BYTES


@given(st.integers(MAX_EXCERPT_BYTES - 8, MAX_EXCERPT_BYTES))
def test_an_excerpt_does_not_end_within_a_character(length: int) -> None:
    excerpt = excerpt_of(b"x" * length + "€😀é".encode() * 3)
    assert excerpt is not None
    assert excerpt.startswith("x" * length)
    assert set(excerpt[length:]) <= set("€😀é")
