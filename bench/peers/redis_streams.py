"""Redis Streams: an append-only file that is synced before every answer, spoken to with pipelines and hiredis."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers.peer import WAIT_S, Peer, Publish, Taken
from bench.peers.program import Program, find, size_of, version_of
from bench.server import free_port


def command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class Redis:
    title = "Redis Streams"
    durability = "`appendfsync always`: the append-only file is synced before the answer (its default: every second)"
    durable = True
    copies = False
    lacks: frozenset[str] = frozenset()

    def missing(self) -> str:
        if not importlib.util.find_spec("hiredis"):
            return "hiredis is not installed"
        return "" if find("redis-server", "LOGPOST_BENCH_REDIS") else "there is no redis-server"

    async def start(self, directory: Path) -> None:
        self._directory, self._port = directory, free_port()
        program = find("redis-server", "LOGPOST_BENCH_REDIS")
        self.version = "Redis " + version_of(program, "--version").split("v=")[1].split()[0]
        self._program = Program.start(
            [program, "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(directory), "--appendonly", "yes",
             "--appendfsync", "always", "--save", ""], directory,
        )  # fmt: skip
        await self._program.listens(self._port)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def fan_out(self, topic: str, groups: int) -> None:
        session = await connect(self.place, topic, groups)
        for n in range(groups):
            await session.call(command(b"XGROUP", b"CREATE", topic.encode(), b"g%d" % n, b"0", b"MKSTREAM"))
        await session.close()

    async def size_on_disk(self) -> int:
        return size_of(self._directory)

    async def stop(self) -> None:
        await self._program.stop()


PEERS: Mapping[str, Callable[[], Peer]] = {"redis": Redis}


class RedisSession:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, topic: str) -> None:
        import hiredis  # noqa: PLC0415

        self._reader, self._writer = reader, writer
        self._topic = topic.encode()
        self._name = secrets.token_hex(4).encode()
        self._parser: Any = hiredis.Reader()

    async def call(self, request: bytes, count: int = 1) -> list[Any]:
        """The answers to ``count`` commands that were sent as one."""
        self._writer.write(request)
        answers: list[Any] = []
        while len(answers) < count:
            if (answer := self._parser.gets()) is not False:
                if isinstance(answer, Exception):
                    raise answer
                answers.append(answer)
            elif data := await self._reader.read(1 << 18):
                self._parser.feed(data)
            else:
                raise ConnectionResetError
        return answers

    def one(self, body: bytes) -> Publish:
        return self.batch([body])

    def batch(self, bodies: Sequence[bytes]) -> Publish:
        request = b"".join(command(b"XADD", self._topic, b"*", b"b", body) for body in bodies)

        async def publish() -> None:
            await self.call(request, len(bodies))

        return publish

    async def take(self, group: str, wanted: int, *, each: bool) -> Taken:
        name = group.encode()
        read = command(b"XREADGROUP", b"GROUP", name, self._name, b"COUNT", b"%d" % wanted, b"BLOCK",
                       b"%d" % (WAIT_S * 1000), b"STREAMS", self._topic, b">")  # fmt: skip
        (streams,) = await self.call(read)
        if not streams:
            return Taken(0, b"")
        entries = streams[0][1]
        acks = [[entry[0]] for entry in entries] if each else [[entry[0] for entry in entries]]
        for ids in acks:
            await self.call(command(b"XACK", self._topic, name, *ids))
        return Taken(len(entries), b"".join(entry[1][1] for entry in entries))

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def connect(place: str, topic: str, groups: int) -> RedisSession:
    host, _, port = place.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    return RedisSession(reader, writer, topic)
