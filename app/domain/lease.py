"""Leases and the ackIds that settle what is in them.

An ackId says where the delivery is (partition, group), under which epoch and lease it was handed out, as which
attempt, and its offset: everything needed to settle it in one statement on any replica. It is a fence, not a secret:
a lease that has ended, a group that has been moved by a seek or an attempt that is over makes it stale.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

# Six hexadecimal numbers. The lease's id starts with its first deadline, in milliseconds since 1970, followed by
# LEASE_RANDOM_BITS of chance; no ackId can be guessed from another, and an ended lease's deadline is still known.
_ACK_ID = re.compile(
    r"ack_([0-9a-f]{1,16})_([0-9a-f]{1,8})_([0-9a-f]{1,8})_([0-9a-f]{1,16})_([0-9a-f]{1,8})_([0-9a-f]{1,16})"
)
LEASE_RANDOM_BITS = 20

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
