"""What streams have handed out and not seen settled: how it stands in storage, and keeping it leased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.storage.database import Database, on_collision_again

Place = tuple[int, int, int]  # partition id, group id, lease id


@dataclass(frozen=True, slots=True)
class Held:
    """What a lease still holds until ``deadline``, in ``seconds``, as pairs of the first offset and the one after the
    last."""

    place: Place
    deadline: datetime
    seconds: float
    ranges: Sequence[tuple[int, int]]


HELD = """
    select l.partition_id, l.group_id, l.id, l.deadline, extract(epoch from l.deadline - clock_timestamp())::float8,
           l.pending
    from unnest($1::bigint[], $2::int[], $3::bigint[]) f (p, g, id)
    join leases l on l.partition_id = f.p and l.group_id = f.g and l.id = f.id
"""


async def held(db: Database, places: Sequence[Place]) -> list[Held]:
    """A row for each part of these leases with a deadline of its own; of those that are gone none."""
    rows = await db.fetch(HELD, *(list(column) for column in zip(*places, strict=True)))
    return [
        Held((row[0], row[1], row[2]), row[3], row[4], [(part.lower, part.upper) for part in row[5]]) for row in rows
    ]


RENEW = "select renew($1, $2, $3, $4, $5)"


async def renew(
    db: Database,
    partition_id: int,
    group_id: int,
    lease_ids: Sequence[int],
    deadlines: Sequence[datetime | None],
    timeouts_ms: Sequence[int],
) -> Sequence[datetime]:
    """Keeps leases for so many milliseconds from now, where they would end before, and returns until when. Only what
    still ends at its deadline, which is None where it is not known."""
    ends: Sequence[datetime] = await on_collision_again(
        lambda: db.fetchval(RENEW, partition_id, group_id, lease_ids, deadlines, timeouts_ms)
    )
    return ends
