"""The rate of a key over several processes: never more than it and a second's worth, never much less to who uses it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from app.domain.quota import BURST_S, LAPSE_S, LEASE_S, Quota, Share

RATES = st.one_of(st.integers(1, 40), st.integers(1, 100_000))
# Which of three processes, how long after the last, how much: a rate's thousandths of a second's worth.
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.just(0.0), st.floats(0, 0.3)), st.integers(1, 1500)),
    min_size=1, max_size=80,
)  # fmt: skip


@dataclass
class Storage:
    """What functions/lease_quota.sql does."""

    until: float = 0.0

    def lease(self, need: float, want: float, burst: float, now: float) -> tuple[float, float]:
        self.until = max(self.until, now)
        behind = self.until - now
        fits = need <= burst - behind + 1e-6
        granted = max(min(want, burst - behind), need) if fits else need if behind == 0 else 0.0
        self.until += granted
        return granted, self.until - now


def take(share: Share, storage: Storage, amount: int, now: float) -> float:
    """0 if it was allowed, else how long to wait."""
    cost = share.quota.cost(amount)
    if share.spend(cost, now):
        return 0.0
    if (wait := share.wait(cost, now)) > 0:
        return wait
    question = share.ask(cost, now)
    granted, behind = storage.lease(question.need, question.want, share.quota.burst, now)
    if share.receive(question, granted, behind, now):
        return 0.0
    wait = share.wait(cost, now)
    assert wait > 0
    return wait


def assert_within(used: list[tuple[float, int]], per_second: int) -> None:
    largest = max((amount for _, amount in used), default=0)
    for first in range(len(used)):
        total = 0
        for at, amount in used[first:]:
            total += amount
            allowed = per_second * (at - used[first][0]) + max(BURST_S * per_second, largest)
            assert total <= allowed * (1 + 1e-6) + per_second * 1e-4


@given(per_second=RATES, steps=STEPS)
def test_no_stretch_of_time_sees_more_requests_than_the_rate_and_a_second(
    per_second: int, steps: list[tuple[int, float, int]]
) -> None:
    storage, now = Storage(), 1000.0
    shares = [Share(Quota(per_second)) for _ in range(3)]
    used: list[tuple[float, int]] = []
    for process, pause, thousandths in steps:
        now += pause
        tries = range(min(1 + per_second * thousandths // 1000, 60))
        used += [(now, 1) for _ in tries if take(shares[process], storage, 1, now) == 0]
    assert_within(used[:300], per_second)


@given(per_second=RATES, steps=STEPS)
def test_no_stretch_of_time_sees_more_bytes_than_the_rate_and_a_second_or_one_body(
    per_second: int, steps: list[tuple[int, float, int]]
) -> None:
    storage, now = Storage(), 1000.0
    shares = [Share(Quota(per_second)) for _ in range(3)]
    used: list[tuple[float, int]] = []
    for process, pause, thousandths in steps:
        now += pause
        size = 1 + per_second * thousandths // 1000
        if take(shares[process], storage, size, now) == 0:
            used.append((now, size))
    assert_within(used, per_second)


@given(per_second=RATES, amounts=st.lists(st.integers(1, 3000), min_size=1, max_size=30))
def test_who_waits_as_told_is_let_in_and_not_long_before(per_second: int, amounts: list[int]) -> None:
    storage, now = Storage(), 1000.0
    share = Share(Quota(per_second))
    for thousandths in amounts:
        amount = 1 + per_second * thousandths // 1000
        wait = take(share, storage, amount, now)
        if wait > 0:
            early = now + wait * 0.99 - LEASE_S  # what is left of a grant may make it possible that much sooner
            assert early < now or take(share, storage, amount, early) > 0
            now += wait + 1e-6
            assert take(share, storage, amount, now) == 0


@given(per_second=st.integers(20, 50_000), processes=st.integers(1, 4), share_of_rate=st.floats(0.1, 0.95))
def test_who_stays_below_the_rate_is_never_refused_however_many_replicas_it_uses(
    per_second: int, processes: int, share_of_rate: float
) -> None:
    storage = Storage()
    shares = [Share(Quota(per_second)) for _ in range(processes)]
    count = min(int(per_second * share_of_rate * 5), 5000)
    for n in range(count):
        now = 1000.0 + n / (per_second * share_of_rate)
        assert take(shares[n % processes], storage, 1, now) == 0, n


def test_a_busy_process_asks_ten_times_a_second_and_no_more() -> None:
    storage, share, asked = Storage(), Share(Quota(10_000)), 0
    for n in range(30_000):
        now = 1000.0 + n / 9_999
        before = storage.until
        assert take(share, storage, 1, now) == 0
        asked += storage.until != before
    assert asked <= 3 / LEASE_S + 10


def test_what_was_granted_and_not_used_lapses() -> None:
    share, storage = Share(Quota(1000)), Storage()
    for n in range(8):
        assert take(share, storage, 1, 1000.0 + n / 1000) == 0
    assert share.spend(0.001, 1000.01)
    assert not share.spend(0.001, 1000.01 + LAPSE_S)


def test_what_is_given_back_can_be_spent_again() -> None:
    share = Share(Quota(10))
    question = share.ask(0.0, 0.0)
    assert share.receive(question, 0.5, 0.5, 0.0)
    assert share.spend(0.5, 0.1)
    assert not share.spend(0.1, 0.1)
    share.give_back(0.5)
    assert share.spend(0.5, 0.1)
