"""Quotas: how much a key may do, over all replicas, judged in this process without the database most of the time.

request ─▶ share of this process ── enough left ──▶ go on            nothing else happens, per request
                 │ used up, or lapsed
                 ▼ one at a time for each key
           for sure too much ──▶ 429        storage ── granted ──▶ go on
                                                    └─ refused ──▶ 429, and when to come back
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from app.domain.errors import RateLimited
from app.domain.key import Key
from app.domain.quota import Quota, Share
from app.storage import quotas
from app.storage.database import Database

Kind = Literal["requests", "bytes"]

MAX_SHARES = 20_000


@dataclass(slots=True)
class Place:
    """A key's share here. Whoever finds it used up asks for all who come after."""

    share: Share
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Quotas:
    """One per process. ``requests_per_s`` and ``bytes_per_s`` are for keys that say nothing else; 0 is no limit."""

    def __init__(self, db: Database, *, requests_per_s: int = 0, bytes_per_s: int = 0) -> None:
        self._db = db
        self._requests_per_s = requests_per_s
        self._bytes_per_s = bytes_per_s
        self._places: dict[tuple[str, Kind], Place] = {}

    def rate_of(self, key: Key, kind: Kind) -> int:
        """A second's worth, or 0 for a key that is not limited."""
        own, usual = (
            (key.requests_per_s, self._requests_per_s) if kind == "requests" else (key.bytes_per_s, self._bytes_per_s)
        )
        return usual if own is None else own

    async def take(self, key: Key, kind: Kind, amount: int) -> None:
        """Uses so much of the key's quota. Raises RateLimited, which uses nothing; DatabaseUnavailable."""
        per_second = self.rate_of(key, kind)
        if per_second == 0 or amount == 0:
            return
        place = self._place(key, kind, per_second)
        cost, clock = place.share.quota.cost(amount), asyncio.get_running_loop().time
        if place.share.spend(cost, clock()):
            return
        async with place.turn:
            if place.share.spend(cost, clock()):
                return
            self._refuse(place.share, cost, kind)
            question = place.share.ask(cost, clock())
            granted, behind = await quotas.lease(self._db, key.prefix, kind, question, place.share.quota.burst)
            if not place.share.receive(question, granted, behind, clock()):
                self._refuse(place.share, cost, kind)
                raise _too_much(kind, per_second, 0.0)  # it has become possible since

    def spend(self, key: Key, amounts: Mapping[Kind, int]) -> bool:
        """Uses so much of each where this process has been granted enough; else nothing, and ``take`` has to ask."""
        now = asyncio.get_running_loop().time()
        spent: list[tuple[Share, float]] = []
        for kind, amount in amounts.items():
            if (per_second := self.rate_of(key, kind)) == 0 or amount == 0:
                continue
            share = self._place(key, kind, per_second).share
            cost = share.quota.cost(amount)
            if not share.spend(cost, now):
                for other, used in spent:
                    other.give_back(used)
                return False
            spent.append((share, cost))
        return True

    def foresee(self, key: Key, kind: Kind, amount: int) -> None:
        """Raises RateLimited where so much would be refused for sure; uses nothing."""
        if per_second := self.rate_of(key, kind):
            share = self._place(key, kind, per_second).share
            self._refuse(share, share.quota.cost(amount), kind)

    def _place(self, key: Key, kind: Kind, per_second: int) -> Place:
        place = self._places.get((key.prefix, kind))
        if place is None:
            if len(self._places) >= MAX_SHARES:
                self._places.pop(next(iter(self._places)))
            place = self._places[key.prefix, kind] = Place(Share(Quota(per_second)))
        return place

    def _refuse(self, share: Share, cost: float, kind: Kind) -> None:
        wait = share.wait(cost, asyncio.get_running_loop().time())
        if wait > 0:
            raise _too_much(kind, share.quota.per_second, wait)


def _too_much(kind: Kind, per_second: float, wait_s: float) -> RateLimited:
    what = "requests" if kind == "requests" else "bytes of request bodies"
    return RateLimited(
        f"This key may use {per_second:.0f} {what} a second, over all replicas.",
        retry_after=max(1, math.ceil(wait_s)),
    )
