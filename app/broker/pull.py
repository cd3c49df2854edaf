"""Pull: hands messages to a consumer, now or as soon as there are any.

    wake-up ──▶ hint ──▶ claim ──▶ messages                      one round trip
    no hint ──▶ survey of all cursors ──▶ claims ──▶ messages, or why there are none

The hints of a group are kept in its line (broker/line.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app import failpoints
from app.broker import tally
from app.broker.catalog import Catalog, GroupKey
from app.broker.demand import Demand, Pulled, Taking, reason
from app.broker.doubts import Doubts
from app.broker.line import Line, Patience
from app.broker.retain import Trims
from app.broker.sift import judge
from app.broker.unsettled import Unsettled
from app.broker.wakeups import Wakeups
from app.domain.errors import DatabaseUnavailable, GroupNotFound, ShuttingDown
from app.domain.group import Group
from app.storage import claims, leases
from app.storage.claims import Claim
from app.storage.database import Database, Outdated
from app.storage.leases import Prospect

# How long and how often a partition is tried again where another process is at work.
BUSY_S = 0.01
MAX_BUSY = 5
# A line nobody stood in for this long is forgotten, with its hints.
IDLE_LINE_S = 10.0
MAX_REREADS = 5
# What even a pull that does not wait may spend on passing over messages that are not for its group.
PASSING_S = 0.2


class Puller:
    """All pulling of one process: of requests, streams and pushes alike."""

    def __init__(self, db: Database, catalog: Catalog, wakeups: Wakeups, unsettled: Unsettled) -> None:
        self._db = db
        self._catalog = catalog
        self._wakeups = wakeups
        self._unsettled = unsettled
        self._lines: dict[int, Line] = {}
        self._patient: set[Patience] = set()
        self._doubts = Doubts()
        self._trims = Trims(db)
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
                group = await self._group(key, demand)
                async with self.standing_in(group, demand.owner) as line:
                    try:
                        return await self._pull_in(line, key[0], group, demand, patience)
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

    async def _group(self, key: GroupKey, demand: Demand) -> Group:
        """Raises TopicNotFound, GroupNotFound."""
        group = await self._catalog.group(*key)
        if demand.group_id not in (None, group.id):
            self._catalog.forget_group(*key)  # what is known may be the one that is gone
            group = await self._catalog.group(*key)
            if demand.group_id != group.id:
                raise GroupNotFound.named(group.topic, group.name)
        return group

    async def _pull_in(self, line: Line, namespace_id: int, group: Group, demand: Demand, patience: Patience) -> Pulled:
        loop = asyncio.get_running_loop()
        line.must_survey = line.must_survey or not line.hints
        while not patience.has_ended:
            is_last = loop.time() >= patience.until
            until = max(patience.until, loop.time() + PASSING_S)
            wanted = demand.wanted or group.config.batch_size
            room = await self._unsettled.reserve(namespace_id, group, wanted, until)
            taking = Taking(group, line, demand, room.messages, demand.byte_limit, until)
            try:
                pulled = await self._take(taking, must_survey=is_last)
            finally:
                room.end(taking.count)
            if pulled.taken or is_last:
                return pulled
            # Without room in the namespace news stays news; polling has it looked at again.
            if (pulled.limit is not None or not line.has_news()) and not patience.has_ended:
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
        self._trims.forget()
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

    async def _take(self, taking: Taking, *, must_survey: bool) -> Pulled:
        group, line, demand = taking.group, taking.line, taking.demand
        if taking.room <= 0:
            return Pulled(group, [], "max_in_flight", self._unsettled.limit)
        await self._trims.trim_for(group)
        try:
            await self._claim_hinted(taking)
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
        if claimable:
            line.hint(claimable)
            await self._claim_hinted(taking)
        return Pulled(group, taking.taken, None if taking.taken else reason(taking.outcomes, prospects))

    async def _claim_hinted(self, taking: Taking) -> None:
        """Looks where hints say, again and again until there is something or no hint is left.

        The oldest hint is looked at by itself, because where much has piled up it is enough; then a little of many at
        once. What comes meanwhile is for the next pull: nobody waits for a batch to be full.
        """
        line = taking.line
        try:
            while not taking.taken and taking.goes_on() and (partition_id := line.take_hint()) is not None:
                await self._claim(taking, partition_id)
                share = line.take_share() if taking.goes_on() else []
                if taking.group.config.filter is None and share:
                    await self._claim_share(taking, share)
                    continue
                while share and taking.goes_on():
                    await self._claim(taking, share.pop(0))
                line.put_back(share)
        finally:
            if taking.busy:
                line.hint(taking.busy)

    async def _claim(self, taking: Taking, partition_id: int) -> None:
        async with taking.line.turn_at(partition_id):
            since = asyncio.get_running_loop().time()
            claim = await self._claim_judged(taking, partition_id)
            tried = 1
            while claim.outcome == "busy" and tried < MAX_BUSY and not taking.taken:
                await asyncio.sleep(BUSY_S * tried * random.random())
                since = asyncio.get_running_loop().time()
                claim = await self._claim_judged(taking, partition_id)
                tried += 1
        taking.add(partition_id, claim, since)

    async def _claim_share(self, taking: Taking, partition_ids: Sequence[int]) -> None:
        """Claims from all of these, as far as there is room, in one commit."""
        group, line = taking.group, taking.line
        async with line.turn_at(*partition_ids):
            since = asyncio.get_running_loop().time()
            with self._doubts.claiming(group.id, taking.demand.owner, taking.lease_ms) as name:
                found = await claims.claim_several(
                    self._db, partition_ids, group, owner=name, wanted=taking.room, byte_limit=taking.byte_room,
                    lease_ms=taking.lease_ms, is_first=not taking.taken,
                )  # fmt: skip
        line.put_back(partition_id for partition_id in partition_ids if partition_id not in found)
        failpoints.hit(failpoints.CLAIMED)
        for partition_id, claim in found.items():
            tally.claimed(group, claim)
            taking.add(partition_id, claim, since)

    async def _claim_judged(self, taking: Taking, partition_id: int) -> Claim:
        """One claim, repeated while it only moves the cursor over messages that are not for this group."""
        while True:
            judged = await judge(self._db, self._catalog, taking.group, partition_id, wanted=taking.room)
            with self._doubts.claiming(taking.group.id, taking.demand.owner, taking.lease_ms) as name:
                claim = await claims.claim(
                    self._db, partition_id, taking.group, owner=name, wanted=taking.room,
                    byte_limit=taking.byte_room, lease_ms=taking.lease_ms, judged=judged,
                    is_first=not taking.taken,
                )  # fmt: skip
            failpoints.hit(failpoints.CLAIMED)
            tally.claimed(taking.group, claim)
            if claim.outcome != "again" or taking.taken or asyncio.get_running_loop().time() >= taking.until:
                return claim
