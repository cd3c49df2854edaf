"""Rate limit of an API key, shared by all replicas: what each process may use ahead of asking, as arithmetic.

The generic cell rate algorithm: all that is shared is one moment, up to which the key has used what its rate allows,
and using so much moves it on by what that costs. So the currency here is time: at 50 a second one costs 20 ms. The
moment may be ``burst`` seconds ahead of now, and no more: functions/lease_quota.sql, by the database's clock.

    storage: │◀─ used ─▶│ until ────── moved on by a grant ──────▶│      grants are ahead of use, by LEASE_S at most,
    process:            └─▶ share: spent, one request at a time ──┘      and lapse LAPSE_S after they were asked for

No stretch of time sees more than the rate and a second's worth. A grant that lapses costs its key what was left of it,
so a process asks for no more than it used up in the last LEASE_S. The group rate limit (domain/rate.py) differs: one
dispatcher at a time sends for a group, it may not save up a second, and it gives back what it does not use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Seconds' worth granted at a time, and for how long it may be used.
LEASE_S = 0.1
LAPSE_S = 0.2
# A second's worth may be used at once. Where grants are ahead of use, those not yet lapsed are a part of it.
BURST_S = 1.0
# How much more than the last time a process may ask for: it has to learn how much it uses.
GROWTH = 4
# The sum of the parts may come out a hair below the whole.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Quota:
    """``per_second`` requests, or bytes of their bodies; above 0."""

    per_second: float

    def cost(self, amount: int) -> float:
        """In seconds."""
        return amount / self.per_second

    @property
    def most(self) -> float:
        """Granted ahead of use: whole requests, or bytes, and one at least."""
        return max(1, math.floor(LEASE_S * self.per_second)) / self.per_second

    @property
    def burst(self) -> float:
        """How far ahead of now the shared moment may be moved, in seconds."""
        return BURST_S if self.most <= self.cost(1) else BURST_S - LAPSE_S


@dataclass(frozen=True, slots=True)
class Question:
    """``need`` seconds' worth that are wanted now, ``want`` with what is good to have. ``left``: put by until then."""

    need: float
    want: float
    left: float
    at: float


class Share:
    """What one process may use of one quota. Times are the process's own, in seconds.

    An amount that costs more than a burst is granted once nothing is owed, and has to be paid off afterwards: a body
    larger than a second's worth can be sent, at the rate.
    """

    __slots__ = ("_burst", "_credit", "_granted", "_granted_at", "_lapses_at", "_late", "_until", "quota")

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self._burst = quota.burst
        self._credit = 0.0
        self._lapses_at = 0.0
        self._granted = 0.0  # the last time
        self._granted_at = 0.0
        self._until = 0.0  # the shared moment, at least: other processes only move it on
        self._late = 0.0  # how much later it may have been all the same

    def spend(self, cost: float, now: float) -> bool:
        """Whether there was enough left of what was granted."""
        if now >= self._lapses_at or self._credit + ROUNDING < cost:
            return False
        self._credit -= cost
        return True

    def give_back(self, cost: float) -> None:
        """What was spent just now, and is not used after all."""
        self._credit += cost

    def wait(self, cost: float, now: float) -> float:
        """Seconds until it is worth asking; 0 where it may be now. Others who use the quota can make it longer."""
        left = self._left(now)
        if left + ROUNDING >= cost:
            return 0.0
        if self._until_granted(cost - left, now) <= ROUNDING:
            return 0.0
        return self._until_granted(cost, now) + self._late  # what is left will have lapsed

    def ask(self, cost: float, now: float) -> Question:
        """What to ask storage for, so that ``cost`` can be spent. Nothing is spent meanwhile."""
        left = self._left(now)
        if now >= self._lapses_at:
            pace = (self._granted - self._credit) / LAPSE_S
        else:
            pace = self._granted / max(now - self._granted_at, ROUNDING)
        self._credit = 0.0
        need = cost - left
        ahead = min(self.quota.most, pace * LEASE_S, self._granted * GROWTH)
        unit = self.quota.cost(1)
        return Question(need, max(need, math.floor(ahead / unit + ROUNDING) * unit), left, now)

    def receive(self, question: Question, granted: float, behind: float, now: float) -> bool:
        """``granted`` seconds' worth; the shared moment is now ``behind`` seconds ahead. Spends the cost if it can."""
        self._until, self._late = question.at + behind, now - question.at
        if granted + ROUNDING < question.need:
            self._credit = question.left
            return False
        self._credit = max(granted - question.need, 0.0)
        self._granted, self._granted_at, self._lapses_at = granted, question.at, question.at + LAPSE_S
        return True

    def _until_granted(self, need: float, now: float) -> float:
        return self._until - now + (need - self._burst if need <= self._burst else 0.0)

    def _left(self, now: float) -> float:
        return self._credit if now < self._lapses_at else 0.0
