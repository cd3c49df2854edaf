"""Positions in a log: where a group starts, a seek goes or a reader begins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from app.domain.errors import InvalidField
from app.domain.message import MAX_BIGINT

# An offset (inclusive), the first message at or after a time, or one of the ends.
Position = Literal["earliest", "latest"] | int | datetime


def parse_position(value: str | int, field: str) -> Position:
    """A position as people write it: ``earliest``, ``latest``, an ISO 8601 time or an integer. A time without a zone
    is UTC. Raises InvalidField naming ``field``; strings are never taken for numbers."""
    if isinstance(value, int):
        if not 0 <= value <= MAX_BIGINT:
            raise InvalidField.of(field, f"an offset must be between 0 and {MAX_BIGINT}")
        return value
    if value == "earliest":
        return "earliest"
    if value == "latest":
        return "latest"
    return parse_time(value, field)


def parse_time(value: str, field: str) -> datetime:
    """An ISO 8601 time; without a zone it is UTC. Raises InvalidField naming ``field``."""
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidField.of(
            field, "must be earliest, latest, an offset, or a time like 2026-01-31T12:00:00Z"
        ) from None
