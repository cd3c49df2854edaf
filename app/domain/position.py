"""Positions in a log: where a group starts, a seek goes or a reader begins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from app.domain.errors import InvalidField
from app.domain.message import MAX_BIGINT

# An offset (inclusive), the first message at or after a time, or one of the ends.
Position = Literal["earliest", "latest"] | int | datetime

A_TIME = "a time like 2026-01-31T12:00:00Z"


def parse_position(value: str | int, field: str) -> Position:
    """A position as people write it: ``earliest``, ``latest``, an ISO 8601 time or an integer. A time without a zone
    is UTC. Raises InvalidField naming ``field``; strings are never taken for numbers."""
    if value == "earliest":
        return "earliest"
    if value == "latest":
        return "latest"
    return _parse_place(value, field, f"earliest, latest, an offset, or {A_TIME}")


def read_position(text: str, field: str) -> Position:
    """The same from where everything is text: digits are an offset."""
    return parse_position(int(text) if text.isascii() and text.isdecimal() else text, field)


def parse_place(value: str | int, field: str) -> int | datetime:
    """The same without the words."""
    return _parse_place(value, field, f"an offset, or {A_TIME}")


def parse_time(value: str, field: str) -> datetime:
    """An ISO 8601 time; without a zone it is UTC. Raises InvalidField naming ``field``."""
    return _parse_time(value, field, A_TIME)


def _parse_place(value: str | int, field: str, allowed: str) -> int | datetime:
    if isinstance(value, int):
        if not 0 <= value <= MAX_BIGINT:
            raise InvalidField.of(field, f"an offset must be between 0 and {MAX_BIGINT}")
        return value
    return _parse_time(value, field, allowed)


def _parse_time(value: str, field: str, allowed: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidField.of(field, f"must be {allowed}") from None
