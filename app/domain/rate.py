"""Rate limit of a push group: a token bucket as arithmetic over (tokens, at).

The pair lives in a row of the database which replicas share, and ``at`` is the database's time in milliseconds. A
second's worth of tokens never piles up: what a quiet minute saved must not hit the endpoint at once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

# How much may be saved up, in seconds of the rate, over the one token that makes anything possible. A tenth forgives
# a sender that wakes late and adds no more than that to the rate of any second.
BURST_S = 0.1
# Tokens: after ``wait_ms`` there is a whole one, also where the sum of its parts comes out a hair below.
ROUNDING = 1e-6


class Bucket(NamedTuple):
    tokens: float
    at: int


def burst(per_second: float) -> float:
    """The most tokens a bucket holds."""
    return 1 + per_second * BURST_S


def full(per_second: float, now: int) -> Bucket:
    """The bucket of a group nothing was sent for."""
    return Bucket(burst(per_second), now)


def take(bucket: Bucket, per_second: float, now: int, want: int = 1) -> tuple[Bucket, int]:
    """Takes up to ``want`` tokens; returns what is left and how many were granted."""
    bucket = _refilled(bucket, per_second, now)
    granted = max(0, min(want, math.floor(bucket.tokens + ROUNDING)))
    return bucket._replace(tokens=max(0.0, bucket.tokens - granted)), granted


def give_back(bucket: Bucket, per_second: float, tokens: int) -> Bucket:
    """Returns tokens that were granted and not used."""
    return bucket._replace(tokens=min(burst(per_second), bucket.tokens + tokens))


def wait_ms(bucket: Bucket, per_second: float, now: int) -> int:
    """How long until one token can be taken; 0 if it can now."""
    missing = 1 - ROUNDING / 2 - _refilled(bucket, per_second, now).tokens
    return max(0, math.ceil(missing * 1000 / per_second))


def _refilled(bucket: Bucket, per_second: float, now: int) -> Bucket:
    # A time before the stored one (a failover to a server whose clock is behind) refills nothing and goes on from it,
    # else the bucket would stay empty until that clock has caught up.
    elapsed = max(0, now - bucket.at)
    tokens = min(burst(per_second), bucket.tokens + elapsed * per_second / 1000)
    return Bucket(tokens, now)
