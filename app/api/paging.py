"""Lists: ``limit``, and a ``cursor`` that says where the next page begins, in a form that is ours alone."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.api.documents import Answer
from app.domain.errors import InvalidField
from app.domain.message import MAX_BIGINT

T = TypeVar("T")
Item = TypeVar("Item")

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_CURSOR = 1024


def _written_whole(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise ValueError("must be a whole number")
    return value


# A number in a query string, which pydantic alone would also take from "1.0", " 1" and "1_000".
DIGITS = BeforeValidator(_written_whole)
Whole = Annotated[int, DIGITS]


class PageQuery(BaseModel):
    """The parameters of every list; unknown ones are refused, because a misspelt filter would show too much."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[Whole, Query(description="Most items to return.")] = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    cursor: Annotated[str | None, Query(description="nextCursor of the page before.")] = Field(
        None, max_length=MAX_CURSOR
    )

    def after(self, kind: type[T], default: T) -> T:
        """What the cursor was made of, or ``default`` without one. Raises InvalidField."""
        return default if self.cursor is None else read_cursor(self.cursor, kind)


class Page(Answer, Generic[Item]):
    """A part of a list. ``nextCursor`` is null on the last page."""

    items: list[Item]
    next_cursor: str | None


def page(found: Sequence[T], limit: int, show: Callable[[T], Item], place: Callable[[T], Any]) -> dict[str, Any]:
    """A page of what was found when ``limit + 1`` were asked for; ``place`` of the last item makes the cursor."""
    more = len(found) > limit
    shown = found[:limit]
    return {"items": [show(each) for each in shown], "next_cursor": make_cursor(place(shown[-1])) if more else None}


def make_cursor(place: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def read_cursor(cursor: str, kind: type[T]) -> T:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        place = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=kind)
        _check_storable(place)
    except (ValueError, OverflowError, msgspec.DecodeError):
        raise InvalidField.of("cursor", "is not one that a list of this kind returned") from None
    return place


def _check_storable(place: Any) -> None:
    """Raises ValueError, OverflowError for what the database could not have given."""
    if isinstance(place, str) and "\0" in place:
        raise ValueError("NUL")
    if isinstance(place, int) and not -MAX_BIGINT <= place <= MAX_BIGINT:
        raise OverflowError("past 64 bits")
    if isinstance(place, datetime):
        place.astimezone(UTC)  # the first and last hours of all time have none
    if isinstance(place, msgspec.Struct):
        place = msgspec.structs.astuple(place)
    if isinstance(place, tuple | list):
        for part in place:
            _check_storable(part)
