"""A server in a thread of its own, for Hypothesis: its test functions are plain ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from tests.security.conftest import Keyed, keyed_on

T = TypeVar("T")


class Background:
    """``keyed`` is the server, ``do`` waits for a coroutine of it."""

    def __init__(self, dsn: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self.keyed: Keyed = self.do(self._stack.enter_async_context(keyed_on(dsn)))

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(120)

    def close(self) -> None:
        self.do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
