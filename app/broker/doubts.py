"""Doubts: claims of which nobody knows whether they were made, because their answer was lost on the way from Postgres.

Such a claim may have put messages into a lease that nobody works on. Its consumer must not go on behind them as if
they were settled: later messages of their keys would overtake them. So it goes on under another name, to which the
database gives nothing that is in the hands of the old one, until the lost lease has ended. That holds also for a
claim that is carried out late, out of a connection that was given up.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from app.domain.errors import DatabaseUnavailable

# Between an owner and what tells its names apart. No owner has it: labels are without control characters.
SEPARATOR = "\x1f"
# How long after it was given up a claim may still be carried out.
LATE_S = 60.0


def owner_of(name: str) -> str:
    """The owner who claimed under this name."""
    return name.partition(SEPARATOR)[0]


class Doubts:
    """The names under which the consumers of one process claim."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, str], tuple[str, float]] = {}

    @contextmanager
    def claiming(self, group_id: int, owner: str, lease_ms: int) -> Iterator[str]:
        """The name to claim under; another one from here on if the block ends without an answer."""
        name, until = self._names.get((group_id, owner), (owner, 0.0))
        try:
            yield name
        except (DatabaseUnavailable, asyncio.CancelledError):
            until = max(until, asyncio.get_running_loop().time() + lease_ms / 1000 + LATE_S)
            self._names[group_id, owner] = f"{owner}{SEPARATOR}{secrets.token_hex(4)}", until
            raise

    def forget(self) -> None:
        """Names whose reason has passed."""
        now = asyncio.get_running_loop().time()
        self._names = {key: (name, until) for key, (name, until) in self._names.items() if until > now}
