"""Settle: how deliveries end. Ack, nack, discard; extend keeps one going; hand back returns it untouched.

Acks are the common case, and share their commits (broker/acks.py). The other verbs are exceptions and go one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app import failpoints
from app.broker import tally
from app.broker.acks import Acks, Asked
from app.broker.wakeups import Wakeups
from app.domain.group import Group
from app.domain.lease import AckId, InvalidAckId, Part, Verb, by_lease, parse_ack_id, parts_of
from app.domain.partition import topic_of
from app.storage import leases
from app.storage.database import Database


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one delivery ends. ``delay_ms`` (nack) None is the backoff's; ``timeout_ms`` is extend's new time.

    ``detail``: what a push knows of its attempt, a JSON object (functions/record_attempts.sql).
    """

    verb: Verb
    ack_id: AckId
    reason: str | None = None
    delay_ms: int | None = None
    timeout_ms: int = 0
    detail: str | None = None


class Settler:
    """All settling of one process."""

    def __init__(self, db: Database, wakeups: Wakeups) -> None:
        self._db = db
        self._wakeups = wakeups
        self._acks = Acks(db, wakeups)

    async def ack(self, group: Group, ack_ids: Sequence[str]) -> list[bool]:
        """For each, whether it is settled now: True also where a repeated ack finds it so while its lease lives. False
        of what is no ackId of this group. Returns after the commit."""
        return await self._ack(group, own_parts(group, ack_ids), len(ack_ids))

    async def ack_leased(self, group: Group, ack_ids: Sequence[AckId]) -> list[bool]:
        """The same of what this process was handed itself."""
        return await self._ack(group, by_lease(ack_ids), len(ack_ids))

    async def settle(self, group: Group, settlements: Sequence[Settlement]) -> list[bool]:
        """Mixed verbs: acks first, then discards, nacks and extends. For each, whether it was in flight."""
        results = [False] * len(settlements)
        acks = [at for at, settlement in enumerate(settlements) if settlement.verb == "ack"]
        if acks:
            parts = [part for part in by_lease(settlements[at].ack_id for at in acks) if is_of(group, part.first)]
            done = await self._ack(group, parts, len(acks))
            for at, ok in zip(acks, done, strict=True):
                results[at] = ok
        # A delivery named twice under one verb is one; what was said last of it counts.
        last = {(settlement.verb, settlement.ack_id): at for at, settlement in enumerate(settlements)}
        by_place: dict[tuple[Verb, int], list[int]] = defaultdict(list)
        for (verb, ack_id), at in last.items():
            if is_of(group, ack_id):
                by_place[verb, ack_id.partition_id].append(at)
        for verb in ("discard", "nack", "extend"):
            for (of, partition_id), positions in by_place.items():
                if of == verb:
                    chosen = [settlements[at] for at in positions]
                    for found in await self._apply(group, verb, partition_id, chosen):
                        results[positions[found]] = True
        return [
            results[last[settlement.verb, settlement.ack_id]] if settlement.verb != "ack" else result
            for settlement, result in zip(settlements, results, strict=True)
        ]

    async def hand_back(self, group_id: int, ack_ids: Iterable[AckId]) -> None:
        """Returns deliveries nobody will work on, for immediate redelivery and without using up an attempt."""
        by_partition: dict[int, list[AckId]] = defaultdict(list)
        for ack_id in ack_ids:
            by_partition[ack_id.partition_id].append(ack_id)
        for partition_id, returned in sorted(by_partition.items()):
            lease_ids, offsets = [a.lease_id for a in returned], [a.offset for a in returned]
            await leases.hand_back(self._db, partition_id, group_id, lease_ids, offsets)
            self._wakeups.freed(group_id, (partition_id,))

    async def _apply(self, group: Group, verb: Verb, partition_id: int, chosen: Sequence[Settlement]) -> set[int]:
        lease_ids = [settlement.ack_id.lease_id for settlement in chosen]
        offsets = [settlement.ack_id.offset for settlement in chosen]
        if verb == "extend":
            timeouts = [settlement.timeout_ms for settlement in chosen]
            return await leases.extend(self._db, partition_id, group.id, lease_ids, offsets, timeouts)
        reasons = [settlement.reason for settlement in chosen]
        details = [settlement.detail for settlement in chosen]
        if verb == "nack":
            failpoints.hit(failpoints.NACKING)
            found, dead = await leases.nack(
                self._db, partition_id, group.id, lease_ids, offsets, reasons=reasons, details=details,
                delays_ms=[settlement.delay_ms for settlement in chosen],
            )  # fmt: skip
            failpoints.hit(failpoints.NACKED)
            tally.nacked(group, len(found), dead)
        else:
            found = await leases.discard(
                self._db, partition_id, group.id, lease_ids, offsets, reasons=reasons, details=details
            )
            tally.discarded(group, len(found))
        if found:
            for at in found:
                self._wakeups.settled(group.id, partition_id, lease_ids[at], (offsets[at],))
            self._wakeups.freed(group.id, (partition_id,))
        if verb == "discard" and len(found) < len(chosen):
            found |= await self._repeated(group, partition_id, chosen, {*range(len(chosen))} - found)
        return found

    async def _repeated(
        self, group: Group, partition_id: int, chosen: Sequence[Settlement], positions: set[int]
    ) -> set[int]:
        missed = sorted(positions)
        ids = [chosen[at].ack_id for at in missed]
        again = await leases.repeated(
            self._db, partition_id, group.id, [a.epoch for a in ids], [a.lease_id for a in ids],
            [a.offset for a in ids], [chosen[at].verb == "discard" for at in missed],
        )  # fmt: skip
        return {missed[at] for at in again}

    async def _find_repeated(self, group: Group, parts: Sequence[Part], results: list[bool]) -> None:
        """Marks what found nothing in flight, yet repeats an ack whose answer may have been lost."""
        for part in parts:
            missed = [at for at, position in enumerate(part.positions) if not results[position]]
            if not missed:
                continue
            n, first = len(missed), part.first
            again = await leases.repeated(
                self._db, first.partition_id, group.id, [first.epoch] * n, [first.lease_id] * n,
                [part.offsets[at] for at in missed], [False] * n,
            )  # fmt: skip
            for at in again:
                results[part.positions[missed[at]]] = True

    async def _ack(self, group: Group, parts: Sequence[Part], count: int) -> list[bool]:
        asked: Asked = defaultdict(dict)
        for part in parts:
            place = part.first.partition_id, group.id
            asked[place].setdefault(part.first.lease_id, []).extend(part.offsets)
        settled = await self._acks.settle(asked, is_eager=group.config.ordering == "partition",
                                           is_counted=not group.is_hook)  # fmt: skip
        results = [False] * count
        for part in parts:
            done = settled.get((part.first.partition_id, group.id), {}).get(part.first.lease_id, set())
            for position, offset in zip(part.positions, part.offsets, strict=True):
                results[position] = offset in done
        await self._find_repeated(group, parts, results)
        return results


def own_parts(group: Group, ack_ids: Sequence[str]) -> list[Part]:
    """AckIds by lease. Those of other groups, also of one that had this name before, and what is none are left out."""
    try:
        parts = parts_of(ack_ids)
    except InvalidAckId:
        known = [at for at, text in enumerate(ack_ids) if parse_ack_id(text) is not None]
        parts = [
            part._replace(positions=[known[position] for position in part.positions])
            for part in parts_of([ack_ids[at] for at in known])
        ]
    return [part for part in parts if is_of(group, part.first)]


def is_of(group: Group, ack_id: AckId) -> bool:
    return ack_id.group_id == group.id and topic_of(ack_id.partition_id) == group.topic_id
