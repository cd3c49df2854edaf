"""What the tables share: their types, their defaults, and columns that are required or part of a key."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP

metadata = MetaData()

TIME = TIMESTAMP(timezone=True)
TEXTS = ARRAY(Text)
LONG_AGO = text("'-infinity'")
NOW = text("now()")
ZERO = text("0")
ONE = text("1")
FALSE = text("false")


def key(name: str, kind: Any) -> Column[Any]:
    """A part of the primary key that the application gives."""
    return Column(name, kind, primary_key=True, autoincrement=False)


def required(name: str, kind: Any, *more: Any, default: Any = None) -> Column[Any]:
    return Column(name, kind, *more, nullable=False, server_default=default)


def place() -> list[Column[Any]]:
    """Of a group in a partition, first in the key of all that is kept there."""
    return [key("partition_id", BigInteger), key("group_id", Integer)]
