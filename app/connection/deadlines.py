"""How long a client may take, and how much it may send and hold open."""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

# A reader that takes less than this within a stall deadline is not reading.
LEAST_READ_BYTES = 32 * 1024


class Reading(Enum):
    """What the next byte of the client belongs to."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and counts of one connection; ``connections`` is of one worker.

    ``head_s``: from the first byte of a request to the end of its headers. ``body_s``: from there to the end of the
    body. ``idle_s``: silence between requests, and before the first. ``stall_s``: nobody reads the answer.
    ``head_bytes``: request line and headers. ``pipelined``: requests waiting behind one that is being answered.
    """

    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 30.0
    stall_s: float = 30.0
    head_bytes: int = 64 * 1024
    pipelined: int = 100
    connections: int = 10_000


class Deadline:
    """Calls ``action`` when the time set last is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
        self._loop = loop
        self._action = action
        self._timer: TimerHandle | None = None

    def set(self, seconds: float) -> None:
        self.clear()
        self._timer = self._loop.call_later(seconds, self._fire)

    def clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def is_set(self) -> bool:
        return self._timer is not None

    def _fire(self) -> None:
        self._timer = None
        self._action()


class Stall:
    """Cuts a client off that does not go on reading what we have written."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds
        self._deadline = Deadline(loop, self._check)
        self._before = 0

    def watch(self) -> None:
        """From now on, unless it does already."""
        if self._deadline.is_set:
            return
        self._before = self._transport.get_write_buffer_size()
        if self._before:
            self._deadline.set(self._seconds)

    def clear(self) -> None:
        self._deadline.clear()

    def _check(self) -> None:
        left = self._transport.get_write_buffer_size()
        if left and self._before - left < LEAST_READ_BYTES:
            self._transport.abort()
        else:
            self.watch()
