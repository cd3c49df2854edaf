"""What a consumer wants, what it got, and a pull while it is at work."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from app.broker.line import Line
from app.domain.group import Group
from app.domain.lease import AckId
from app.storage.claims import Claim
from app.storage.leases import Prospect

Empty = Literal["no_messages", "paused", "held", "max_in_flight", "leased"]

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
    """``group`` is the configuration the claims were made under; ``empty`` says why nothing was taken, and ``limit``
    which limit of the namespace it was, in words."""

    group: Group
    taken: list[Taken]
    empty: Empty | None
    limit: str | None = None

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
    ackTimeoutMs. ``is_shared``: the same owner may pull from other replicas too. ``group_id``: for who keeps account of
    one group, to whom another that is declared under its name after it is gone is nothing.
    """

    owner: str
    wanted: int | None = None
    byte_limit: int = DEFAULT_BYTES
    lease_ms: int | None = None
    is_shared: bool = False
    group_id: int | None = None


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
    busy: list[int] = field(default_factory=list)  # partitions where somebody else is at work

    def goes_on(self) -> bool:
        if self.room <= 0 or self.byte_room <= 0:
            return False
        return "again" not in self.outcomes or asyncio.get_running_loop().time() < self.until

    @property
    def count(self) -> int:
        """Messages taken."""
        return sum(taken.claim.count for taken in self.taken)

    @property
    def lease_ms(self) -> int:
        return self.demand.lease_ms or self.group.config.ack_timeout_ms

    def add(self, partition_id: int, claim: Claim, since: float) -> None:
        """Takes what a claim got, and has the line know what there may be to come back for."""
        self.outcomes.add(claim.outcome)
        if claim.outcome == "busy":
            self.busy.append(partition_id)
        elif claim.outcome == "again":  # only the cursor was moved, and whoever comes next goes on from there
            self.line.hint((partition_id,))
        elif claim.outcome == "full":
            self.line.hint((partition_id,))
            self.byte_room = 0
        if not claim.pieces:
            return
        self.taken.append(Taken(partition_id, claim, since))
        self.room -= claim.count
        self.byte_room -= claim.size
        self.line.alarm_in(self.lease_ms / 1000)
        # In partition ordering it is this consumer's now, and whoever settles the last of it says so.
        if claim.more and self.group.config.ordering != "partition":
            self.line.hint((partition_id,))


def reason(outcomes: set[str], prospects: list[Prospect]) -> Empty:
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
