"""A message in the hands of a dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.broker.demand import Pulled
from app.domain.lease import AckId
from app.domain.message import Message, id_prefix


@dataclass(eq=False, slots=True)
class Leased:
    """``id``: the message's. ``sure_at``: the loop's time at which the lease was last known to live.

    ``is_ending``: its end is in the ledger. ``task``: who sends it, or waits to; cancelled when the lease is lost.
    """

    id: str
    message: Message
    attempt: int
    ack_id: AckId
    sure_at: float
    is_lost: bool = False
    is_ending: bool = False
    is_sending: bool = False
    is_cut: bool = False
    task: asyncio.Task[Any] | None = None

    def cut_short(self) -> None:
        if self.task is not None and not self.is_cut:
            self.is_cut = True
            self.task.cancel()

    def lose(self) -> None:
        """Somebody else has it by now, or will: nothing more is done with it here."""
        self.is_lost = True
        self.cut_short()


def leased_of(pulled: Pulled) -> Iterator[Leased]:
    """What was pulled, message by message, in order of offsets within each partition.

    A lease began before its claim was answered: where that took long, it may have ended by now.
    """
    for taken in pulled.taken:
        claim, place = taken.claim, taken.partition_id
        for piece in claim.pieces:
            prefix = id_prefix(place, piece.published_at)
            for at, (offset, attempt) in enumerate(piece.places()):
                yield Leased(
                    f"{prefix}{offset:x}",
                    Message(
                        place, offset, piece.published_at, piece.keys[at] if piece.keys else None,
                        piece.metas[at] if piece.metas else None, piece.payloads[at],
                    ),
                    attempt, AckId(place, pulled.group.id, claim.epoch, claim.lease_id, attempt, offset), taken.since,
                )  # fmt: skip
