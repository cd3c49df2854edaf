"""Pull: hands messages to a consumer, now or as soon as there are any.

    wake-up ──▶ hint ──▶ claim ──▶ messages                      one round trip
    no hint ──▶ survey of all cursors ──▶ claims ──▶ messages, or why there are none

The hints of a group are kept in its line (broker/line.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from app.broker import tally
from app.broker.catalog import Catalog, GroupKey
from app.broker.doubts import Doubts
from app.broker.line import Line, Patience
from app.broker.sift import judge
from app.broker.wakeups import Wakeups
from app.domain.errors import DatabaseUnavailable, ShuttingDown
from app.domain.group import Group
from app.domain.lease import AckId
from app.storage import leases
from app.storage.database import Database, Outdated
from app.storage.leases import Claim, Prospect

Empty = Literal["no_messages", "paused", "held", "max_in_flight", "leased"]

# How long and how often a partition is tried again where another process is at work.
BUSY_S = 0.01
MAX_BUSY = 5
# A line nobody stood in for this long is forgotten, with its hints.
IDLE_LINE_S = 10.0
MAX_REREADS = 5
# What even a pull that does not wait may spend on passing over messages that are not for its group.
PASSING_S = 0.2
# Payload bytes in one answer, where nobody says.
DEFAULT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Taken:
    """A lease on messages of one partition. ``since``: the loop's time before it was asked for."""

    partition_id: int
    claim: Claim
    since: float


@dataclass(frozen=True, slots=True)
class Pulled:
    """``group`` is the configuration the claims were made under; ``empty`` says why nothing was taken."""

    group: Group
    taken: list[Taken]
    empty: Empty | None

    def ack_ids(self) -> list[AckId]:
        """Of everything that was taken."""
        return [
            AckId(taken.partition_id, self.group.id, taken.claim.epoch, taken.claim.lease_id, attempt, offset)
            for taken in self.taken
            for piece in taken.claim.pieces
            for offset, attempt in piece.places()
        ]


@dataclass(frozen=True, slots=True)
class Demand:
    """What one consumer wants. ``owner`` names it: claims of the same owner may add to each other.

    ``byte_limit`` counts payload bytes; at least one message is always given. None is the group's batchSize and
    ackTimeoutMs. ``is_shared``: the same owner may pull from other replicas too.
    """

    owner: str
    wanted: int | None = None
    byte_limit: int = DEFAULT_BYTES
    lease_ms: int | None = None
    is_shared: bool = False


class Puller:
    """All pulling of one process: of requests, streams and pushes alike."""

    def __init__(self, db: Database, catalog: Catalog, wakeups: Wakeups) -> None:
        self._db = db
        self._catalog = catalog
        self._wakeups = wakeups
        self._lines: dict[int, Line] = {}
        self._patient: set[Patience] = set()
        self._doubts = Doubts()
        self._is_stopping = False

    async def pull(self, key: GroupKey, demand: Demand, patience: Patience) -> Pulled:
        """Up to ``demand.wanted`` messages as soon as there is one, or none when the patience ends.

        Raises TopicNotFound, GroupNotFound (also if the group goes away meanwhile), ShuttingDown, DatabaseUnavailable.
        """
        if self._is_stopping:
            raise ShuttingDown("This replica is stopping; another one answers.")
        self._patient.add(patience)
        try:
            for _ in range(MAX_REREADS):
                group = await self._catalog.group(*key)
                async with self.standing_in(group, demand.owner) as line:
                    try:
                        return await self._pull_in(line, group, demand, patience)
                    except Outdated:
                        self._catalog.forget_group(*key)
            raise DatabaseUnavailable("The group is being changed all the time; try again.")
        finally:
            self._patient.discard(patience)

    def stop(self) -> None:
        """Nothing is claimed any more, and everybody who waits is answered."""
        self._is_stopping = True
        for patience in self._patient:
            patience.end()

    def owners(self) -> dict[int, list[str]]:
        """Who stands in which group's line, by group id."""
        return {line.group_id: [*line.owners] for line in self._lines.values() if line.owners}

    async def _pull_in(self, line: Line, group: Group, demand: Demand, patience: Patience) -> Pulled:
        loop = asyncio.get_running_loop()
        line.must_survey = line.must_survey or not line.hints
        while not patience.has_ended:
            is_last = loop.time() >= patience.until
            until = max(patience.until, loop.time() + PASSING_S)
            pulled = await self._take(group, line, demand, until, must_survey=is_last)
            if pulled.taken or is_last:
                return pulled
            if not line.has_news() and not patience.has_ended:
                await line.wait(patience)
        return Pulled(group, [], "no_messages")

    @asynccontextmanager
    async def standing_in(self, group: Group, owner: str) -> AsyncIterator[Line]:
        """The group's line, kept up to date by wake-ups while somebody stands in it."""
        line = self._lines.get(group.id)
        if line is None:
            line = self._lines[group.id] = Line(group.id)
            line.stop_listening = self._wakeups.listen(group.topic_id, group.id, line.hint)
        line.owners[owner] += 1
        try:
            yield line
        finally:
            line.owners[owner] -= 1
            if line.owners[owner] <= 0:
                del line.owners[owner]
            line.left_at = asyncio.get_running_loop().time()

    async def poll_once(self) -> None:
        """Looks for what no wake-up told of, in one statement for everybody who waits; forgets deserted lines."""
        self._doubts.forget()
        now = asyncio.get_running_loop().time()
        for line in [*self._lines.values()]:
            if not line.owners and now - line.left_at > IDLE_LINE_S:
                line.leave()
                del self._lines[line.group_id]
        by_group: dict[int, list[Prospect]] = {line.group_id: [] for line in self._lines.values() if line.waiters}
        if not by_group:
            return
        for prospect in await leases.survey(self._db, [*by_group]):
            by_group[prospect.group_id].append(prospect)
        for group_id, prospects in by_group.items():
            claimable = [found.partition_id for found in prospects if found.claimable]
            if (known := self._lines.get(group_id)) is not None:
                known.note(prospects)
                if claimable or not prospects:  # without cursors the group is gone, and who waits has to hear it
                    known.hint(claimable)

    async def _take(self, group: Group, line: Line, demand: Demand, until: float, *, must_survey: bool) -> Pulled:
        taking = Taking(group, line, demand, demand.wanted or group.config.batch_size, demand.byte_limit, until)
        try:
            while taking.goes_on and (hinted := line.take_hint()) is not None:
                await self._claim(taking, hinted)
            if not taking.taken and (must_survey or line.must_survey):
                return await self._survey(taking)
        except (Outdated, DatabaseUnavailable) as error:
            if not taking.taken:
                raise
            if demand.is_shared and isinstance(error, DatabaseUnavailable):
                # At another replica it would go on behind what that claim may have taken: it has to be told.
                await self._give_up(taking)
                raise
            line.hint(())  # what was taken is leased: it has to be given out before anything else
        return Pulled(group, taking.taken, None)

    async def _give_up(self, taking: Taking) -> None:
        """Hands back what there is, if it can be: who does not hear of it will not settle it."""
        for partition_id, claim in ((taken.partition_id, taken.claim) for taken in taking.taken):
            offsets = [offset for piece in claim.pieces for offset, _ in piece.places()]
            with contextlib.suppress(DatabaseUnavailable):
                await leases.hand_back(
                    self._db, partition_id, taking.group.id, [claim.lease_id] * len(offsets), offsets
                )

    async def _survey(self, taking: Taking) -> Pulled:
        line, group = taking.line, taking.group
        line.must_survey = False
        prospects = await leases.survey(self._db, [group.id])
        if not prospects:
            raise Outdated
        line.note(prospects)
        claimable = [prospect.partition_id for prospect in prospects if prospect.claimable]
        while claimable and taking.goes_on:
            await self._claim(taking, claimable.pop(0))
        if claimable:
            line.hint(claimable)
        return Pulled(group, taking.taken, None if taking.taken else _reason(taking.outcomes, prospects))

    async def _claim(self, taking: Taking, partition_id: int) -> None:
        group, line = taking.group, taking.line
        lease_ms = taking.demand.lease_ms or group.config.ack_timeout_ms
        async with line.turn_at(partition_id):
            for tried in range(MAX_BUSY):
                since = asyncio.get_running_loop().time()
                claim = await self._claim_judged(taking, partition_id, lease_ms)
                if claim.outcome != "busy":
                    break
                await asyncio.sleep(BUSY_S * (tried + 1) * random.random())
            else:
                line.hint((partition_id,))
                return
        taking.add(partition_id, claim, since)
        if claim.outcome == "full":
            line.hint((partition_id,))
            taking.byte_room = 0
        if claim.pieces:
            line.alarm_in(lease_ms / 1000)
            # In partition ordering it is this consumer's now, and whoever settles the last of it says so.
            if claim.more and group.config.ordering != "partition":
                line.hint((partition_id,))

    async def _claim_judged(self, taking: Taking, partition_id: int, lease_ms: int) -> Claim:
        """One claim, repeated while it only moves the cursor over messages that are not for this group."""
        while True:
            judged = await judge(self._db, self._catalog, taking.group, partition_id)
            with self._doubts.claiming(taking.group.id, taking.demand.owner, lease_ms) as name:
                claim = await leases.claim(
                    self._db, partition_id, taking.group, owner=name, wanted=taking.room,
                    byte_limit=taking.byte_room, lease_ms=lease_ms, judged=judged,
                    is_first=not taking.taken,
                )  # fmt: skip
            tally.claimed(taking.group, claim)
            if claim.outcome != "again":
                return claim
            if asyncio.get_running_loop().time() >= taking.until:
                taking.line.hint((partition_id,))  # whoever comes next goes on from here
                return claim


@dataclass(eq=False, slots=True)
class Taking:
    """One pull at work: what it has got so far and what it still has room for.

    ``until``, by the loop's clock: when to stop passing over messages that are not for this group.
    """

    group: Group
    line: Line
    demand: Demand
    room: int
    byte_room: int
    until: float
    taken: list[Taken] = field(default_factory=list)
    outcomes: set[str] = field(default_factory=set)

    @property
    def goes_on(self) -> bool:
        return self.room > 0 and self.byte_room > 0 and asyncio.get_running_loop().time() < self.until

    def add(self, partition_id: int, claim: Claim, since: float) -> None:
        self.outcomes.add(claim.outcome)
        if claim.pieces:
            self.taken.append(Taken(partition_id, claim, since))
            self.room -= claim.count
            self.byte_room -= claim.size


def _reason(outcomes: set[str], prospects: list[Prospect]) -> Empty:
    if all(prospect.paused for prospect in prospects) or "paused" in outcomes:
        return "paused"
    if "max_in_flight" in outcomes:
        return "max_in_flight"
    if "leased" in outcomes or "busy" in outcomes:
        return "leased"
    # A survey is as old as the claims are many: what they found counts first.
    if "held" in outcomes or any(prospect.deferred for prospect in prospects):
        return "held"
    return "leased" if any(prospect.leased for prospect in prospects) else "no_messages"
