"""NATS JetStream, in its own text protocol: publishes with an acknowledgement, pull consumers with explicit acks.

A batch is an atomic one (NATS 2.12 and later: one acknowledgement for the whole, like ours), else so many publishes
that wait for their acknowledgements together.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.peers.peer import WAIT_S, Peer, Publish, Taken
from bench.peers.program import Program, find, size_of, version_of
from bench.server import free_port

SYNCED = (2, 10)  # the first with sync_interval: always
ATOMIC = (2, 12)
# Measured turn by turn: 2.12 takes batches 4 to 7 times slower than 2.15. An older one is measured, and said to be old.
CURRENT = (2, 15)
BATCH_ID = b"b" * 16  # its place in a batch that was made before
HELLO = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"bench"}\r\n'


class Nats:
    title = "NATS JetStream"
    durability = (
        "`sync_interval: always`: file storage is synced before the acknowledgement (its default: every 2 minutes)"
    )
    durable = True
    copies = False
    lacks: frozenset[str] = frozenset()

    def missing(self) -> str:
        return "" if find("nats-server", "LOGPOST_BENCH_NATS") else "there is no nats-server"

    async def start(self, directory: Path) -> None:
        self._directory, self._port = directory, free_port()
        program = find("nats-server", "LOGPOST_BENCH_NATS")
        self.version = "NATS " + version_of(program, "--version").split("v")[-1]
        number = tuple(int(part) for part in self.version.split()[1].split(".")[:2])
        sync = "" if number < SYNCED else "sync_interval: always"
        if not sync:
            self.durable = False
            self.durability = "written, and synced every 2 minutes: this version cannot do otherwise"
        self._is_atomic = number >= ATOMIC
        if number < CURRENT:
            self.version += " (**old**: 2.15 is several times faster in batches)"
        file = directory / "nats.conf"
        file.write_text(
            f'listen: "127.0.0.1:{self._port}"\njetstream {{ store_dir: "{directory}/js"\n {sync}\n'
            "max_memory_store: 64M\n max_file_store: 20G }\n"
        )
        self._program = Program.start([program, "-c", str(file)], directory)
        await self._program.listens(self._port)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._port}:{int(self._is_atomic)}"

    async def fan_out(self, topic: str, groups: int) -> None:
        session = await connect(self.place, topic, groups)
        stream: dict[str, Any] = {"name": topic, "subjects": [topic], "storage": "file", "num_replicas": 1}
        if self._is_atomic:
            stream["allow_atomic"] = True
        await session.ask(f"$JS.API.STREAM.CREATE.{topic}", stream)
        for n in range(groups):
            consumer = {"durable_name": f"g{n}", "ack_policy": "explicit", "max_ack_pending": 100_000}
            await session.ask(f"$JS.API.CONSUMER.DURABLE.CREATE.{topic}.g{n}",
                              {"stream_name": topic, "config": consumer})  # fmt: skip
        await session.close()

    async def size_on_disk(self) -> int:
        return size_of(self._directory / "js")

    async def stop(self) -> None:
        await self._program.stop()


PEERS: Mapping[str, Callable[[], Peer]] = {"nats": Nats}


class Message(NamedTuple):
    subscription: bytes  # 1 gets answers, 2 what was pulled
    reply: bytes
    status: bytes  # of an answer without content: 404, 408 …
    body: bytes


class NatsSession:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, topic: str, *, is_atomic: bool
    ) -> None:
        self._reader, self._writer = reader, writer
        self._topic = topic
        self._is_atomic = is_atomic
        self._inbox = b"_I." + secrets.token_hex(8).encode()
        self._rest = b""
        self._asked = 0  # messages that the server may still send
        self._arrived: list[Message] = []
        self._answered: list[bytes] = []

    async def greet(self) -> None:
        await self._reader.readline()
        self._writer.write(HELLO + b"SUB %b.p 1\r\nSUB %b.m 2\r\nPING\r\n" % (self._inbox, self._inbox))
        await self._reader.readuntil(b"PONG\r\n")

    async def ask(self, subject: str, question: Any) -> Any:
        self._writer.write(put(subject.encode(), self._inbox + b".p", json.dumps(question).encode()))
        return json.loads((await self._answers(1))[0])

    async def _more(self) -> None:
        """Reads what comes next: deliveries, the end of a pull, answers."""
        data = await self._reader.read(1 << 18)
        if not data:
            raise ConnectionResetError
        found, self._rest = parsed(self._rest + data)
        for message in found:
            if message.subscription == b"1":
                if b'"error"' in message.body or message.status:
                    raise RuntimeError(f"{message.status!r} {message.body!r}")
                self._answered.append(message.body)
            elif message.status:
                self._asked = 0
            else:
                self._arrived.append(message)

    async def _answers(self, count: int) -> list[bytes]:
        while len(self._answered) < count:
            await self._more()
        answers, self._answered = self._answered[:count], self._answered[count:]
        return answers

    def one(self, body: bytes) -> Publish:
        return self._each([body])

    def batch(self, bodies: Sequence[bytes]) -> Publish:
        return self._atomic(bodies) if self._is_atomic else self._each(bodies)

    def _each(self, bodies: Sequence[bytes]) -> Publish:
        request = b"".join(put(self._topic.encode(), self._inbox + b".p", body) for body in bodies)

        async def publish() -> None:
            self._writer.write(request)
            await self._answers(len(bodies))

        return publish

    def _atomic(self, bodies: Sequence[bytes]) -> Publish:
        """The first gets an empty answer, the last the acknowledgement; those between get none."""
        last = len(bodies)
        parts = []
        for n, body in enumerate(bodies, start=1):
            headers = b"NATS/1.0\r\nNats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n" % (BATCH_ID, n)
            headers += (b"Nats-Batch-Commit: 1\r\n" if n == last else b"") + b"\r\n"
            reply = self._inbox + b".p " if n in (1, last) else b""
            parts.append(b"HPUB %b %b%d %d\r\n%b%b\r\n" % (self._topic.encode(), reply, len(headers),
                                                          len(headers) + len(body), headers, body))  # fmt: skip
        request = b"".join(parts)

        async def publish() -> None:
            self._writer.write(request.replace(BATCH_ID, secrets.token_hex(8).encode()))
            await self._answers(min(last, 2))

        return publish

    async def take(self, group: str, wanted: int, *, each: bool) -> Taken:
        if not self._asked:
            more = {"batch": wanted, "expires": int(WAIT_S * 1e9)}
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._topic}.{group}"
            self._writer.write(put(subject.encode(), self._inbox + b".m", json.dumps(more).encode()))
            self._asked = wanted
        while self._asked and not self._arrived:
            await self._more()
        found, self._arrived = self._arrived, []
        self._asked = max(self._asked - len(found), 0)
        # With an answer to each, or to the last: the server takes them in order.
        if each:
            for message in found:
                self._writer.write(put(message.reply, self._inbox + b".p", b"+ACK"))
                await self._answers(1)
        elif found:
            acks = [put(message.reply, b"", b"+ACK") for message in found[:-1]]
            self._writer.write(b"".join(acks) + put(found[-1].reply, self._inbox + b".p", b"+ACK"))
            await self._answers(1)
        return Taken(len(found), b"".join(message.body for message in found))

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def put(subject: bytes, reply: bytes, body: bytes) -> bytes:
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(body), body)


def parsed(data: bytes) -> tuple[list[Message], bytes]:
    """Whole messages, and what is left: ``MSG subject 1 [reply] size``, ``HMSG subject 1 [reply] headers size``."""
    found, at = [], 0
    while (end := data.find(b"\r\n", at)) >= 0:
        words = data[at:end].split(b" ")
        start = end + 2
        if words[0] in (b"MSG", b"HMSG"):
            headers = int(words[-2]) if words[0] == b"HMSG" else 0
            after = start + int(words[-1])
            if len(data) < after + 2:
                break
            head, body = data[start : start + headers], data[start + headers : after]
            status = b"" if head.startswith(b"NATS/1.0\r\n") else head[9:12]
            reply = words[3] if len(words) == (6 if headers else 5) else b""
            found.append(Message(words[2], reply, status, body))
            start = after + 2
        elif words[0] == b"-ERR":
            raise RuntimeError(data[at:end].decode())
        at = start
    return found, data[at:]


async def connect(place: str, topic: str, groups: int) -> NatsSession:
    host, port, is_atomic = place.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    session = NatsSession(reader, writer, topic, is_atomic=is_atomic == "1")
    await session.greet()
    return session
