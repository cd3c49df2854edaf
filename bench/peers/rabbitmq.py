"""RabbitMQ's quorum queues, with publisher confirms: a fanout exchange, and a queue for each group.

AMQP's rare commands are made by pamqp; publishes, confirms, deliveries and acks are bytes put together here.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers.peer import WAIT_S, Peer, Publish, Taken
from bench.peers.program import Program, find, size_of
from bench.server import free_port

SCRIPT = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one on the PATH changes to another account
METHOD, HEADER, BODY = 1, 2, 3
PUBLISH, ACK, DELIVER = (60, 40), (60, 80), (60, 60)
FRAME_BYTES = 131_072


class RabbitMQ:
    title = "RabbitMQ quorum queue"
    durability = "publisher confirms of a quorum queue of one member: its log is synced before; acks get no answer"
    durable = True
    copies = True
    lacks: frozenset[str] = frozenset()

    def missing(self) -> str:
        if not importlib.util.find_spec("pamqp"):
            return "pamqp is not installed"
        return "" if self._script() and find("epmd", "LOGPOST_BENCH_EPMD") else "there is no rabbitmq-server"

    def _script(self) -> str:
        return find(SCRIPT, "LOGPOST_BENCH_RABBITMQ") or find("rabbitmq-server", "LOGPOST_BENCH_RABBITMQ")

    async def start(self, directory: Path) -> None:
        self._directory, self._port, names = directory, free_port(), free_port()
        # Erlang's directory of nodes would otherwise be started as a daemon that nobody ends.
        self._names = Program.start([find("epmd", "LOGPOST_BENCH_EPMD"), "-port", str(names), "-address", "127.0.0.1"],
                                    directory)  # fmt: skip
        await self._names.listens(names)
        (directory / "plugins").write_text("[].\n")
        (directory / "rabbit.conf").write_text(
            "disk_free_limit.absolute = 1GB\nvm_memory_high_watermark.relative = 0.4\n"
        )
        settings = {
            "HOME": str(directory), "ERL_EPMD_PORT": str(names), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"bench-{secrets.token_hex(3)}@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port), "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"), "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"), "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbit.conf"), "RABBITMQ_PID_FILE": str(directory / "pid"),
            # Loopback only, and schedulers that sleep while nothing happens: the cores are the others' then.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none",
        }  # fmt: skip
        self._program = Program.start([self._script()], directory, settings)
        await self._program.listens(self._port)
        session = await connect(self.place, "", 0)
        self.version = f"RabbitMQ {session.version}"
        await session.close()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def fan_out(self, topic: str, groups: int) -> None:
        from pamqp import commands  # noqa: PLC0415

        session = await connect(self.place, topic, groups)
        await session.call(commands.Exchange.Declare(exchange=topic, exchange_type="fanout", durable=True))
        for n in range(groups):
            queue, kind = f"{topic}.g{n}", {"x-queue-type": "quorum"}
            await session.call(commands.Queue.Declare(queue=queue, durable=True, arguments=kind))
            await session.call(commands.Queue.Bind(queue=queue, exchange=topic))
        await session.close()

    async def size_on_disk(self) -> int:
        return size_of(self._directory / "data")

    async def stop(self) -> None:
        await self._program.stop()
        await self._names.stop()


PEERS: Mapping[str, Callable[[], Peer]] = {"rabbitmq": RabbitMQ}


class AmqpSession:
    """One connection with one channel in confirm mode."""

    version = ""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, topic: str) -> None:
        self._reader, self._writer = reader, writer
        self._topic = topic
        self._rest = b""
        self._published = 0
        self._unconfirmed: set[int] = set()
        self._tags: list[int] = []
        self._bodies: list[bytes] = []
        self._consuming = ""

    async def greet(self) -> None:
        from pamqp import commands, frame  # noqa: PLC0415

        self._writer.write(b"AMQP\x00\x00\x09\x01")
        start: Any = await self._command()
        version = start.server_properties["version"]
        self.version = version.decode() if isinstance(version, bytes) else str(version)
        login = commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")
        await self.call(login, channel=0)
        tuned = commands.Connection.TuneOk(channel_max=1, frame_max=FRAME_BYTES, heartbeat=0)
        self._writer.write(frame.marshal(tuned, 0))
        await self.call(commands.Connection.Open(), channel=0)
        await self.call(commands.Channel.Open())
        await self.call(commands.Confirm.Select())

    async def call(self, question: Any, channel: int = 1) -> Any:
        from pamqp import frame  # noqa: PLC0415

        self._writer.write(frame.marshal(question, channel))
        return await self._command()

    async def _command(self) -> Any:
        from pamqp import frame  # noqa: PLC0415

        head = await self._reader.readexactly(7)
        rest = await self._reader.readexactly(int.from_bytes(head[3:7], "big") + 1)
        answer = frame.unmarshal(head + rest)[2]
        if answer.name in ("Connection.Close", "Channel.Close"):
            raise RuntimeError(str(answer.reply_text))
        return answer

    async def _more(self) -> None:
        """Reads what comes next: confirms and deliveries."""
        data = await self._reader.read(1 << 18)
        if not data:
            raise ConnectionResetError
        data, at = self._rest + data, 0
        while len(data) >= at + 8 and len(data) >= (end := at + 8 + int.from_bytes(data[at + 3 : at + 7], "big")):
            self._got(data[at], data[at + 7 : end - 1])
            at = end
        self._rest = data[at:]

    def _got(self, kind: int, payload: bytes) -> None:
        if kind == BODY:
            self._bodies.append(payload)  # none of ours is longer than a frame
        elif kind == METHOD:
            method = struct.unpack_from(">HH", payload)
            if method == ACK:
                tag, is_multiple = struct.unpack_from(">QB", payload, 4)
                self._unconfirmed -= {each for each in self._unconfirmed if each <= tag} if is_multiple else {tag}
            elif method == DELIVER:
                self._tags.append(struct.unpack_from(">Q", payload, 5 + payload[4])[0])
            else:
                raise RuntimeError(f"{method}: {payload!r}")

    def one(self, body: bytes) -> Publish:
        return self.batch([body])

    def batch(self, bodies: Sequence[bytes]) -> Publish:
        topic = self._topic.encode()
        method = frame_of(METHOD, struct.pack(">HHHB", *PUBLISH, 0, len(topic)) + topic + b"\0\0")
        request = b"".join(
            # Of the properties only the delivery mode: persistent.
            method + frame_of(HEADER, struct.pack(">HHQHB", 60, 0, len(body), 1 << 12, 2)) + frame_of(BODY, body)
            for body in bodies
        )

        async def publish() -> None:
            first, self._published = self._published + 1, self._published + len(bodies)
            self._unconfirmed.update(range(first, self._published + 1))
            self._writer.write(request)
            while self._unconfirmed:
                await self._more()

        return publish

    async def take(self, group: str, wanted: int, *, each: bool) -> Taken:
        if not self._consuming:
            await self._consume(group, wanted)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while not self._bodies:
                    await self._more()
        tags, self._tags = self._tags[: len(self._bodies)], self._tags[len(self._bodies) :]
        bodies, self._bodies = self._bodies, []
        for tag in tags if each else tags[-1:]:
            self._writer.write(frame_of(METHOD, struct.pack(">HHQB", *ACK, tag, not each)))
        return Taken(len(bodies), b"".join(bodies))

    async def _consume(self, group: str, wanted: int) -> None:
        from pamqp import commands  # noqa: PLC0415

        await self.call(commands.Basic.Qos(prefetch_count=wanted))
        self._consuming = f"{self._topic}.{group}"
        await self.call(commands.Basic.Consume(queue=self._consuming, consumer_tag="c"))

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def frame_of(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"


async def connect(place: str, topic: str, groups: int) -> AmqpSession:
    host, _, port = place.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    session = AmqpSession(reader, writer, topic)
    await session.greet()
    return session
