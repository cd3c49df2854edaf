"""Names of topics, groups, projects and environments: checked once at the edge, plain strings ever after."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.domain.errors import InvalidField

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A (project, environment) pair; ``id`` is its row. Nothing of one namespace is visible in another."""

    id: int
    project: str
    environment: str


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def check_name(kind: str, name: str) -> str:
    """``name`` itself. Raises InvalidField naming ``kind`` (``topic``, ``group``) where it is out of pattern."""
    if _NAME.fullmatch(name) is None:
        raise InvalidField.of(
            kind, "must be 1 to 128 of the characters A-Z a-z 0-9 . _ - and start with a letter or a digit"
        )
    return name
