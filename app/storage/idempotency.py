"""Idempotency keys: which message a key stands for, as long as it stands for one.

A key is written by ``append`` in the transaction of its message. It counts while its topic's window has not passed
and its message was not purged; ``append`` judges by the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.storage.database import Tx

# Where a key lives: its home partition's id and the key itself.
OnceKey = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Taken:
    """The message a key stands for, and the digest of the payload it came with."""

    digest: bytes
    partition_id: int
    offset: int
    published_at: datetime


LOOKUP = """
select k.partition_id, k.key, k.digest, k.target_id, k."offset", k.published_at
from unnest($1::bigint[], $2::text[], $3::bigint[]) w (home, key, window_ms)
join idempotency_keys k on k.partition_id = w.home and k.key = w.key
join partitions l on l.id = k.target_id
where k.published_at > clock_timestamp() - make_interval(secs => w.window_ms / 1000.0)
  and k.published_at > l.purged_at
"""


async def find_taken(tx: Tx, keys: Sequence[OnceKey], windows_ms: Sequence[int]) -> dict[OnceKey, Taken]:
    """Those of the keys that count at the moment."""
    rows = await tx.fetch(LOOKUP, [home for home, _ in keys], [key for _, key in keys], windows_ms)
    return {(row[0], row[1]): Taken(row[2], row[3], row[4], row[5]) for row in rows}
