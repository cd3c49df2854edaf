"""The connection as an answer sees it."""

from __future__ import annotations

import asyncio


class Outgoing:
    """Keeps a head back until its body is there, so that both go out at once: each write wakes the client."""

    __slots__ = ("_head", "_transport", "holds")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.holds = False  # the next write is such a head

    def write(self, data: bytes) -> None:
        if self.holds:
            self._head, self.holds = data, False
        elif self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """There will be no body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
