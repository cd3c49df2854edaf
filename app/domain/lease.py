"""Leases and the ackIds that settle what is in them.

An ackId says where the delivery is (partition, group), under which epoch and lease it was handed out, as which
attempt, and its offset: everything needed to settle it in one statement on any replica. It is a fence, not a secret:
a lease that has ended, a group that has been moved by a seek or an attempt that is over makes it stale.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from operator import methodcaller
from typing import Literal, NamedTuple

# Six hexadecimal numbers. The lease's id starts with its first deadline, in milliseconds since 1970, followed by
# LEASE_RANDOM_BITS of chance; no ackId can be guessed from another, and an ended lease's deadline is still known.
_ACK_ID = re.compile(
    r"ack_([0-9a-f]{1,16})_([0-9a-f]{1,8})_([0-9a-f]{1,8})_([0-9a-f]{1,16})_([0-9a-f]{1,8})_([0-9a-f]{1,16})"
)
LEASE_RANDOM_BITS = 20
# One less than the largest bigint: a range of Postgres ends behind its last offset.
MAX_OFFSET = 2**63 - 2
_OFFSETS = re.compile(r"[0-9a-f]{1,16}(?:_[0-9a-f]{1,16})*")

Status = Literal["ok", "stale"]
Verb = Literal["ack", "nack", "discard", "extend"]


class AckId(NamedTuple):
    partition_id: int
    group_id: int
    epoch: int
    lease_id: int
    attempt: int
    offset: int

    def __str__(self) -> str:
        return f"{ack_id_prefix(*self[:4])}{self.attempt:x}_{self.offset:x}"


def ack_id_prefix(partition_id: int, group_id: int, epoch: int, lease_id: int) -> str:
    """What the ackIds of one lease have in common."""
    return f"ack_{partition_id:x}_{group_id:x}_{epoch:x}_{lease_id:x}_"


def parse_ack_id(text: str) -> AckId | None:
    """None if this was never one of our ackIds."""
    match = _ACK_ID.fullmatch(text)
    if match is None:
        return None
    ack_id = AckId(*(int(part, 16) for part in match.groups()))
    fits = max(ack_id.partition_id, ack_id.lease_id) < 2**63 and 1 <= ack_id.offset <= MAX_OFFSET
    return ack_id if fits and max(ack_id.group_id, ack_id.epoch, ack_id.attempt) < 2**31 else None


class Part(NamedTuple):
    """AckIds of one lease and attempt: ``first`` stands for all; ``positions`` are where they were in the input."""

    first: AckId
    positions: list[int]
    offsets: list[int]


def parts_of(ack_ids: Sequence[str]) -> list[Part]:
    """AckIds by lease: those of one lease differ in their last number only, so the rest is read once.

    Raises InvalidAckId with the position of one that is none.
    """
    by_head: dict[str, list[int]] = {}
    if ack_ids and all(map(methodcaller("startswith", head := _head(ack_ids[0])), ack_ids)):
        by_head[head] = [*range(len(ack_ids))]
    else:
        for position, text in enumerate(ack_ids):
            by_head.setdefault(_head(text), []).append(position)
    parts = []
    for head, positions in by_head.items():
        first = parse_ack_id(ack_ids[positions[0]])
        lasts = [ack_ids[position][len(head) :] for position in positions]
        # All of them at once; an underscore too many is found by their number.
        joined = "_".join(lasts)
        if first is None or not _OFFSETS.fullmatch(joined) or joined.count("_") != len(lasts) - 1:
            raise InvalidAckId(next(at for at in positions if parse_ack_id(ack_ids[at]) is None))
        offsets = [int(last, 16) for last in lasts]
        for unfit in (max(offsets), min(offsets)):
            if not 1 <= unfit <= MAX_OFFSET:
                raise InvalidAckId(positions[offsets.index(unfit)])
        parts.append(Part(first, positions, offsets))
    return parts


def by_lease(ack_ids: Iterable[AckId]) -> list[Part]:
    """The same of ackIds that have been read."""
    parts: dict[tuple[int, ...], Part] = {}
    for position, ack_id in enumerate(ack_ids):
        part = parts.get(ack_id[:5])
        if part is None:
            part = parts[ack_id[:5]] = Part(ack_id, [], [])
        part.positions.append(position)
        part.offsets.append(ack_id.offset)
    return [*parts.values()]


def _head(ack_id: str) -> str:
    """All but the offset."""
    return ack_id[: ack_id.rfind("_") + 1]


class InvalidAckId(ValueError):
    """``position``: which one of several it is."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def multirange(offsets: Iterable[int]) -> str:
    """Offsets as a Postgres int8multirange: ``{[1,4),[7,8)}``."""
    ordered = sorted(set(offsets))
    if ordered and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{{[{ordered[0]},{ordered[-1] + 1})}}"
    runs: list[list[int]] = []
    for offset in ordered:
        if runs and offset <= runs[-1][1]:
            runs[-1][1] = max(runs[-1][1], offset + 1)
        else:
            runs.append([offset, offset + 1])
    return "{" + ",".join(f"[{low},{high})" for low, high in runs) + "}"
