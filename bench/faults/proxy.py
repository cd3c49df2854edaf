"""A TCP proxy that misbehaves on demand: between a replica and Postgres, or between clients and a replica.

Its faults hold for every connection through it, also for those opened later, until ``heal``; ``reset``, ``half_close``
and ``cut_after`` concern the connections of the moment. Directions are seen from the client: ``up`` to the server,
``down`` from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]
BOTH: tuple[Direction, ...] = ("up", "down")
CHUNK = 64 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds: closing sends a RST


@dataclass
class Weather:
    """What happens to every byte. ``bytes_per_s`` None is no limit; ``dropped`` directions lose what is sent."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_s: int | None = None
    dropped: set[Direction] = field(default_factory=set)

    def delay_s(self, size: int) -> float:
        delay = (self.latency_ms + random.uniform(0, self.jitter_ms)) / 1000
        return delay + (size / self.bytes_per_s if self.bytes_per_s else 0.0)


class Link:
    """One proxied connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends: dict[Direction, asyncio.StreamWriter] = {"up": server, "down": client}
        self.left: dict[Direction, int | None] = {"up": None, "down": None}
        self.closed: set[Direction] = set()

    def reset(self) -> None:
        for writer in self.ends.values():
            abort(writer)

    def half_close(self, direction: Direction) -> None:
        """Tells the receiving end of a direction that nothing more comes; the other direction goes on."""
        self.closed.add(direction)
        writer = self.ends[direction]
        with contextlib.suppress(OSError, RuntimeError):
            if writer.can_write_eof():
                writer.write_eof()


class Proxy:
    """Listens on a port of 127.0.0.1; ``server`` is a (host, port) or the path of a Unix socket."""

    def __init__(self, server: tuple[str, int] | str, *, port: int = 0) -> None:
        self.server = server
        self.port = port
        self.weather = Weather()
        self.links: set[Link] = set()
        self.refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Proxy:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Nothing moves, nothing is lost."""
        self._flowing.clear()

    def drop(self, *directions: Direction) -> None:
        """What is sent in these directions is lost for good; what comes after ``heal`` would be out of place, so
        connections that lost something are then reset."""
        self.weather.dropped.update(directions)

    def reset(self) -> int:
        """RST to both ends of every connection; returns how many there were."""
        links = list(self.links)
        for link in links:
            link.reset()
        return len(links)

    def half_close(self, direction: Direction) -> None:
        for link in self.links:
            link.half_close(direction)

    def cut_after(self, size: int, direction: Direction) -> None:
        """Each connection of the moment lets through so many bytes more in a direction, then both ends get a RST."""
        for link in self.links:
            link.left[direction] = size

    def refuse(self) -> None:
        """New connections are reset as soon as they are there."""
        self.refusing = True

    def heal(self) -> None:
        """Good weather. Connections that are not whole any more are reset."""
        lossy = bool(self.weather.dropped)
        self.weather = Weather()
        self.refusing = False
        for link in list(self.links):
            link.left = {"up": None, "down": None}
            if lossy or link.closed:
                link.reset()
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.refusing:
                abort(client)
                return
            await self._serve(reader, client)
        except (OSError, asyncio.CancelledError):
            abort(client)
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if isinstance(self.server, str):
            answers, server = await asyncio.open_unix_connection(self.server)
        else:
            answers, server = await asyncio.open_connection(*self.server)
        link = Link(client, server)
        self.links.add(link)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link, reader, "up"))
                pumps.create_task(self._pump(link, answers, "down"))
        except* OSError:
            link.reset()
        finally:
            self.links.discard(link)
            for writer in (client, server):
                writer.close()

    async def _pump(self, link: Link, reader: asyncio.StreamReader, direction: Direction) -> None:
        writer = link.ends[direction]
        while data := await reader.read(CHUNK):
            if (delay := self.weather.delay_s(len(data))) > 0:
                await asyncio.sleep(delay)
            await self._flowing.wait()
            if direction in self.weather.dropped or direction in link.closed:
                continue
            left = link.left[direction]
            if left is not None and len(data) >= left:
                writer.write(data[:left])
                with contextlib.suppress(OSError):
                    await writer.drain()
                await asyncio.sleep(0)
                link.reset()
                return
            if left is not None:
                link.left[direction] = left - len(data)
            writer.write(data)
            await writer.drain()
        await self._flowing.wait()
        link.half_close(direction)


def abort(writer: asyncio.StreamWriter) -> None:
    """Closes with a RST where the transport is TCP."""
    found = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if found is not None and found.family != socket.AF_UNIX:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
