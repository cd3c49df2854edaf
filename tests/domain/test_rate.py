"""The token bucket: never more than the rate and a burst, never less than the rate to who asks in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.domain.rate import Bucket, burst, full, give_back, take, wait_ms

RATES = st.floats(0.01, 5000, allow_nan=False)
STEPS = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 200)), min_size=1, max_size=60)


@given(per_second=RATES, steps=STEPS)
def test_no_stretch_of_time_gets_more_than_its_rate_and_one_burst(
    per_second: float, steps: list[tuple[int, int]]
) -> None:
    now = 0
    bucket = full(per_second, now)
    grants: list[tuple[int, int]] = []
    for pause, want in steps:
        now += pause
        bucket, granted = take(bucket, per_second, now, want)
        assert 0 <= granted <= want
        assert bucket.tokens >= 0
        grants.append((now, granted))
    for first in range(len(grants)):
        total = 0
        for last in range(first, len(grants)):
            total += grants[last][1]
            seconds = (grants[last][0] - grants[first][0]) / 1000
            assert total <= burst(per_second) + per_second * seconds + 0.01


@given(per_second=RATES, tokens=st.floats(0, 1), now=st.integers(0, 10**13))
def test_who_waits_as_long_as_told_gets_one_and_not_before(per_second: float, tokens: float, now: int) -> None:
    bucket = Bucket(tokens, now)
    wait = wait_ms(bucket, per_second, now)
    assert take(bucket, per_second, now + wait)[1] >= 1
    if wait > 1:  # a millisecond before, the sum of its parts may round to a whole one
        assert take(bucket, per_second, now + wait - 2)[1] == 0


@given(per_second=st.floats(0.5, 1000, allow_nan=False))
def test_who_always_waits_as_told_gets_the_whole_rate(per_second: float) -> None:
    now, granted = 0, 0
    bucket = full(per_second, now)
    while now < 10_000:
        now += wait_ms(bucket, per_second, now)
        bucket, taken = take(bucket, per_second, now, 1000)
        granted += taken
    assert granted >= per_second * 10 - 1


def test_a_quiet_hour_saves_up_no_more_than_a_burst() -> None:
    bucket, granted = take(full(10, 0), 10, 3_600_000, 1000)
    assert granted == 2
    assert take(bucket, 10, 3_600_000, 1000)[1] == 0


def test_a_clock_that_goes_back_neither_fills_nor_stops_it() -> None:
    empty = Bucket(0.0, 1_000_000)
    bucket, granted = take(empty, 10, 0)
    assert granted == 0
    assert wait_ms(bucket, 10, 0) == 100
    assert take(bucket, 10, 100)[1] == 1
    assert take(Bucket(1.0, 1_000_000), 10, 0)[1] == 1


@given(per_second=RATES, want=st.integers(1, 500), unused=st.integers(0, 500))
def test_what_was_not_used_can_be_given_back(per_second: float, want: int, unused: int) -> None:
    bucket, granted = take(full(per_second, 0), per_second, 0, want)
    back = give_back(bucket, per_second, min(granted, unused))
    assert bucket.tokens <= back.tokens <= burst(per_second)
    assert take(back, per_second, 0, 1000)[1] >= min(granted, unused)
