"""How many of a thing a namespace may have; the server's settings give the numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All counts are per namespace but ``partitions_per_topic`` and ``groups_per_topic``."""

    keys: int = 1000
    topics: int = 10_000
    partitions: int = 100_000
    partitions_per_topic: int = 1024
    groups_per_topic: int = 1000
