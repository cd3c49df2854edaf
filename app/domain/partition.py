"""Partitions: how they are numbered, and which one a key goes to."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha1

# A partition's id is its topic's id and its number side by side, so that one bigint names it everywhere.
NUMBER_BITS = 16
MAX_PARTITIONS = 1 << NUMBER_BITS


def partition_id(topic_id: int, number: int) -> int:
    return topic_id << NUMBER_BITS | number


def topic_of(partition: int) -> int:
    return partition >> NUMBER_BITS


def number_of(partition: int) -> int:
    return partition & (MAX_PARTITIONS - 1)


@lru_cache(maxsize=16_384)  # keys come again and again, and a look is a tenth of a hash
def partition_for(key: str, partitions: int) -> int:
    """The number of the partition a key goes to: the first 4 bytes, big-endian, of SHA-1(UTF-8 key) mod partitions."""
    digest = sha1(key.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4]) % partitions
