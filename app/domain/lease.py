"""Leases and the ackIds that settle what is in them.

An ackId says where the delivery is (partition, group), under which epoch and lease it was handed out, as which
attempt, and its offset: everything needed to settle it in one statement on any replica. It is a fence, not a secret:
a lease that has ended, a group that has been moved by a seek or an attempt that is over makes it stale.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

# Six hexadecimal numbers. The lease's id starts with its first deadline, in milliseconds since 1970, followed by
# LEASE_RANDOM_BITS of chance; no ackId can be guessed from another, and an ended lease's deadline is still known.
_ACK_ID = re.compile(
    r"ack_([0-9a-f]{1,16})_([0-9a-f]{1,8})_([0-9a-f]{1,8})_([0-9a-f]{1,16})_([0-9a-f]{1,8})_([0-9a-f]{1,16})"
)
LEASE_RANDOM_BITS = 20
_HEX = frozenset("0123456789abcdef")

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
    fits = max(ack_id.partition_id, ack_id.lease_id, ack_id.offset) < 2**63
    return ack_id if fits and max(ack_id.group_id, ack_id.epoch, ack_id.attempt) < 2**31 else None


class Part(NamedTuple):
    """AckIds of one lease and attempt: ``first`` stands for all; ``positions`` are where they were in the input."""

    first: AckId
    positions: list[int]
    offsets: list[int]


def parts_of(ack_ids: Sequence[str]) -> list[Part]:
    """AckIds by lease: those of one lease differ in their last number only, so the rest is read once.

    Raises InvalidAckId with the position of the first that is none.
    """
    parts: dict[str, Part] = {}
    for position, text in enumerate(ack_ids):
        head, _, last = text.rpartition("_")
        part = parts.get(head)
        if part is None:
            first = parse_ack_id(text)
            if first is None:
                raise InvalidAckId(position)
            part = parts[head] = Part(first, [], [])
        offset = _offset(last)
        if offset is None:
            raise InvalidAckId(position)
        part.positions.append(position)
        part.offsets.append(offset)
    return [*parts.values()]


def _offset(text: str) -> int | None:
    if not 0 < len(text) <= 16 or not _HEX.issuperset(text):
        return None
    offset = int(text, 16)
    return offset if offset < 2**63 else None


class InvalidAckId(ValueError):
    """``position``: which one of several it is."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


def multirange(offsets: Iterable[int]) -> str:
    """Offsets as a Postgres int8multirange: ``{[1,4),[7,8)}``."""
    runs: list[list[int]] = []
    for offset in sorted(offsets):
        if runs and offset <= runs[-1][1]:
            runs[-1][1] = max(runs[-1][1], offset + 1)
        else:
            runs.append([offset, offset + 1])
    return "{" + ",".join(f"[{low},{high})" for low, high in runs) + "}"
