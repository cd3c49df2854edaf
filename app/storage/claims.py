"""Claims: messages of partitions put into a lease of a consumer's, a partition or several in one round trip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from app.domain.group import Group
from app.storage.database import Database, on_collision_again


@dataclass(frozen=True, slots=True)
class Piece:
    """Messages of one record batch, arrays side by side.

    ``offsets`` is None where they are consecutive from ``first_offset``; ``attempts`` is None where all are first
    attempts; ``keys`` and ``metas`` are None where no message has one.
    """

    first_offset: int
    offsets: Sequence[int] | None
    published_at: datetime
    keys: Sequence[str | None] | None
    metas: Sequence[str | None] | None
    payloads: Sequence[bytes]
    attempts: Sequence[int] | None

    def places(self) -> Iterator[tuple[int, int]]:
        """Offset and attempt of each."""
        count = len(self.payloads)
        offsets = self.offsets or range(self.first_offset, self.first_offset + count)
        return zip(offsets, self.attempts or [1] * count, strict=True)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a consumer got of a partition. ``outcome``: ok, or why there is nothing (see functions/claim.sql).

    ``dead``, ``filtered``, ``expired``, ``lost``: how many others it came across and what became of them.
    """

    outcome: str
    more: bool
    lease_id: int = 0
    deadline: datetime | None = None
    epoch: int = 0
    pieces: Sequence[Piece] = ()
    dead: int = 0
    filtered: int = 0
    expired: int = 0
    lost: int = 0

    @property
    def count(self) -> int:
        return sum(len(piece.payloads) for piece in self.pieces)

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return sum(len(payload) for piece in self.pieces for payload in piece.payloads)


@dataclass(frozen=True, slots=True)
class Judged:
    """What a filter said of the offsets from ``start`` to before ``end``; it could not be evaluated for ``failed``."""

    start: int
    end: int
    refused: Sequence[int]
    failed: Sequence[int]


CLAIM = """
    select outcome, more, lease_id, lease_deadline, lease_epoch, n_dead, n_filtered, n_expired, n_lost,
           first_offset, offsets, published, keys, metas, payloads, attempts
    from claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""


async def claim(
    db: Database,
    partition_id: int,
    group: Group,
    *,
    owner: str,
    wanted: int,
    byte_limit: int,
    lease_ms: int,
    judged: Judged | None = None,
    is_first: bool = True,
) -> Claim:
    """Claims up to ``wanted`` messages and ``byte_limit`` bytes of payload for ``owner``; ``is_first``: one at least,
    however large.

    Raises Outdated where ``group`` is not as it is stored any more, DatabaseUnavailable.
    """
    arguments = (
        partition_id, group.id, group.version, owner, wanted, byte_limit, lease_ms, group.config.ordering,
        group.config.flight_limit, group.partitions,
        *((judged.start, judged.end, judged.refused, judged.failed) if judged else (None, None, None, None)),
        is_first,
    )  # fmt: skip
    return _claim_of([tuple(row) for row in await on_collision_again(lambda: db.fetch(CLAIM, *arguments))])


CLAIM_SEVERAL = """
    select partition_id, outcome, more, lease_id, lease_deadline, lease_epoch, n_dead, n_filtered, n_expired, n_lost,
           first_offset, offsets, published, keys, metas, payloads, attempts
    from claim_several($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""


async def claim_several(
    db: Database,
    partition_ids: Sequence[int],
    group: Group,
    *,
    owner: str,
    wanted: int,
    byte_limit: int,
    lease_ms: int,
    is_first: bool = True,
) -> dict[int, Claim]:
    """``claim`` of one partition after the other, in this order, until there is enough; by partition id. One commit.

    Not for groups with a filter.
    """
    arguments = (
        partition_ids, group.id, group.version, owner, wanted, byte_limit, lease_ms, group.config.ordering,
        group.config.flight_limit, group.partitions, is_first,
    )  # fmt: skip
    rows = map(tuple, await on_collision_again(lambda: db.fetch(CLAIM_SEVERAL, *arguments)))
    return {partition_id: _claim_of([row[1:] for row in found]) for partition_id, found in groupby(rows, itemgetter(0))}


def _claim_of(rows: Sequence[tuple[Any, ...]]) -> Claim:
    outcome, more, lease_id, deadline, epoch, *passed = rows[0][:9]
    if outcome != "ok":
        return Claim(outcome, bool(more), 0, None, 0, (), *passed)
    return Claim(outcome, more, lease_id, deadline, epoch, [Piece(*row[9:]) for row in rows], *passed)
