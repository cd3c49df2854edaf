"""A request on the shortcut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

# What goes out, head and all; None if the application has to answer after all, as if nothing had been tried.
Respond = Callable[[bytes | None], None]


class Taken(Protocol):
    """A request that may be answered on the shortcut, once its body is there."""

    def answer(self, body: bytes, respond: Respond) -> bool:
        """False if the application has to answer, and nothing was done; else ``respond`` is called once, later."""


class Shortcut(Protocol):
    def __call__(self, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Taken | None:
        """None for a POST that is the application's. Header names in lower case, as ASGI has them."""


class Held:
    """A request in the place of an Exchange. Its connection stays open, unless ``keep_alive`` is put to False before
    it is answered."""

    __slots__ = ("body", "is_lost", "keep_alive", "scope", "taken", "url")

    def __init__(self, taken: Taken, url: bytes, scope: Any) -> None:
        self.taken = taken
        self.url = url
        self.scope = scope
        self.body = b""
        self.keep_alive = True
        self.is_lost = False

    def lose(self) -> None:
        """The client is gone: what it asked for is done all the same."""
        self.is_lost = True
