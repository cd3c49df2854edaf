"""The receiver of a push group: how it fares, and what may be sent to it. Shared by replicas through the database.

Pure arithmetic over one small state: a circuit breaker (breaker.py), a throttle that the endpoint asked for, a token
bucket (rate.py). Times are the database's, in milliseconds since 1970. Every function gives the state to store back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from app.domain import breaker as circuit
from app.domain import rate
from app.domain.breaker import CLOSED, Breaker
from app.domain.rate import Bucket

State = Literal["healthy", "failing", "throttled", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``since`` and ``reason``: when and why it came to its state; 0 and None where all has always been well."""

    breaker: Breaker = CLOSED
    throttled_until: int = 0
    since: int = 0
    reason: str | None = None
    bucket: Bucket | None = None

    def state(self, now: int) -> State:
        if (circle := self.breaker.state(now)) != "closed":
            return circle
        if now < self.throttled_until:
            return "throttled"
        return "failing" if self.breaker.failures else "healthy"

    def wait_ms(self, now: int) -> int:
        """How long nothing may be sent: 0 if something may, be it one probe only."""
        return max(self.throttled_until - now, self.breaker.wait_ms(now), 0)

    def retry_at(self, now: int) -> int | None:
        wait = self.wait_ms(now)
        return now + wait if wait else None


def failed(endpoint: Endpoint, failures: Iterable[tuple[str, str]], now: int) -> Endpoint:
    """After these messages failed, each for its reason."""
    for message, reason in failures:
        before = endpoint.breaker
        after = circuit.failed(before, message, now)
        if after == before:
            continue  # a straggler
        is_news = not before.failures or (after.openings > 0 and before.openings == 0)
        endpoint = replace(endpoint, breaker=after, reason=reason, since=now if is_news else endpoint.since)
    return endpoint


def succeeded(endpoint: Endpoint, now: int) -> Endpoint:
    """After any success: whatever failures there were, they are not in a row any more."""
    if endpoint.breaker == CLOSED:
        return endpoint
    return replace(endpoint, breaker=CLOSED, since=now, reason=None)


def throttled(endpoint: Endpoint, delay_ms: int, reason: str, now: int) -> Endpoint:
    """After it asked to be left alone for so long. Of several such answers the longest counts."""
    until = max(endpoint.throttled_until, now + delay_ms)
    since = endpoint.since if now < endpoint.throttled_until else now
    return replace(endpoint, throttled_until=until, since=since, reason=reason)


def abandoned(endpoint: Endpoint, message: str) -> Endpoint:
    return replace(endpoint, breaker=circuit.abandoned(endpoint.breaker, message))


def permit(endpoint: Endpoint, message: str, now: int, *, probe_ms: int) -> tuple[Endpoint, bool]:
    """Whether ``message`` may be sent now, perhaps as the probe."""
    if now < endpoint.throttled_until:
        return endpoint, False
    after, may = circuit.permit(endpoint.breaker, message, now, probe_ms=probe_ms)
    return replace(endpoint, breaker=after), may


def take(endpoint: Endpoint, per_second: float, want: int, now: int) -> tuple[Endpoint, int, int]:
    """Takes up to ``want`` tokens: the state, how many were granted, and how long until there is another."""
    bucket = endpoint.bucket or rate.full(per_second, now)
    bucket, granted = rate.take(bucket, per_second, now, want)
    return replace(endpoint, bucket=bucket), granted, rate.wait_ms(bucket, per_second, now)
