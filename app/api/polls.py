"""What outlives the look at its key: pulls that wait, and streams. Both end when the key does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.api.events import Streams
from app.broker.keys import Keyring
from app.broker.line import Patience


@dataclass(eq=False, slots=True)
class Poll:
    """``key``: the prefix of its key, which has ended where ``is_cut``."""

    key: str
    patience: Patience
    is_cut: bool = False


class Polls:
    """Every pull that waits in this process with a key of ours."""

    def __init__(self) -> None:
        self._open: set[Poll] = set()

    @property
    def keys(self) -> set[str]:
        return {poll.key for poll in self._open}

    @contextmanager
    def waiting(self, key: str | None, patience: Patience) -> Iterator[Poll]:
        """``key`` None: the root key, or none, which do not end."""
        poll = Poll(key or "", patience)
        if key is not None:
            self._open.add(poll)
        try:
            yield poll
        finally:
            self._open.discard(poll)

    def cut(self, keys: set[str]) -> None:
        for poll in self._open:
            if poll.key in keys:
                poll.is_cut = True
                poll.patience.end()


async def end_revoked_once(keyring: Keyring, streams: Streams, polls: Polls) -> bool:
    """Ends what waits with a key that was revoked or has expired. False: there is never more to do at once."""
    ended = await keyring.ended(streams.keys | polls.keys)
    streams.cut(ended)
    polls.cut(ended)
    return False
