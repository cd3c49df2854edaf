"""What a publish answers, message by message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.message import Landed


@dataclass(frozen=True, slots=True)
class Published:
    """Where one message is."""

    id: str
    partition: int
    offset: int
    published_at: datetime
    duplicate: bool


def each_published(parts: Sequence[Landed]) -> list[Published]:
    """Every message of a publish, in input order."""
    found: dict[int, Published] = {}
    for landed in parts:
        where = landed.landing
        for at, position in enumerate(landed.positions or range(landed.count)):
            offset = landed.first_offset + at
            found[position] = Published(
                f"{where.id_prefix}{offset:x}", where.partition, offset, where.published_at, landed.duplicate
            )
    return [found[position] for position in sorted(found)]
