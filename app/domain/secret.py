"""Secrets of people that are kept to be used: what signs webhooks, and what lets us in at their receivers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Self

from app.domain.errors import SecretUnreadable

# Stands for a secret wherever one could show.
MASK = "********"

# Headers of a receiver that let somebody in.
_SECRET_HEADER = re.compile(r"auth|cookie|secret|token|key|password|signature", re.IGNORECASE)
# A shorter value is no secret, and could be anywhere by chance.
MIN_SECRET_LENGTH = 8


class Sealed(str):
    """A secret that no key here opens: its text is what is stored. It is kept as it is and never used; ``reason`` says
    what is wrong, for whoever runs the server."""

    __slots__ = ("place", "reason")
    place: object
    reason: str

    @classmethod
    def of(cls, stored: str, *, place: object, reason: str) -> Self:
        sealed = cls(stored)
        sealed.place, sealed.reason = place, reason
        return sealed


def require_readable(secrets: Iterable[str | None]) -> None:
    """Raises SecretUnreadable for the first that is sealed."""
    for secret in secrets:
        if isinstance(secret, Sealed):
            raise SecretUnreadable(secret.reason)


def is_secret_header(name: str) -> bool:
    return _SECRET_HEADER.search(name) is not None


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as they may be shown."""
    return {
        name: MASK if is_secret_header(name) or isinstance(value, Sealed) else value for name, value in headers.items()
    }


def values_to_mask(headers: Mapping[str, str]) -> tuple[str, ...]:
    """What must not show of these headers, wherever else it turns up: each secret, and what follows its scheme."""
    whole = [value for name, value in headers.items() if is_secret_header(name)]
    credentials = [value.partition(" ")[2].strip() for value in whole]
    return tuple(value for value in (*whole, *credentials) if len(value) >= MIN_SECRET_LENGTH)
