"""A database with as many replicas on it as a test likes, in this process: the broker without HTTP."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from app.broker.appender import Appender
from app.broker.catalog import Catalog
from app.broker.configure import TopicDeclaration, declare_group, declare_topic
from app.broker.demand import Demand
from app.broker.line import Patience
from app.broker.observe import GroupStats, group_stats
from app.broker.publish import Publisher
from app.broker.pull import Puller
from app.broker.settle import Settlement, Settler
from app.broker.unsettled import Unsettled
from app.broker.wakeups import Wakeups
from app.domain.group import Group, GroupConfig, Retries
from app.domain.lease import AckId
from app.domain.message import NewMessage
from app.domain.names import Namespace
from app.domain.topic import Topic, TopicConfig
from app.storage.database import Database
from app.storage.namespaces import namespace_of
from tests.published import Published, each_published

TOPIC, GROUP = "orders", "billing"
QUICK = Retries(max=3, strategy="fixed", base_delay=1, max_delay=1)


@dataclass(frozen=True, slots=True)
class Got:
    """A delivered message as a test looks at it."""

    partition: int
    offset: int
    key: str | None
    payload: bytes
    attempt: int
    ack_id: AckId

    @property
    def text(self) -> str:
        return str(msgspec.json.decode(self.payload))


class Replica:
    """One process's broker. ``wakeups`` of several replicas hear of each other only if a test passes hints on."""

    def __init__(self, db: Database, namespace: Namespace, *, max_unsettled: int = 1_000_000) -> None:
        self.db = db
        self.namespace = namespace
        self.catalog = Catalog(db)
        self.wakeups = Wakeups()
        self.appender = Appender(db, max_messages=50_000, max_bytes=1 << 28, on_published=self.wakeups.published)
        self.publisher = Publisher(db, self.catalog, self.appender)
        self.unsettled = Unsettled(db, max_unsettled)
        self.puller = Puller(db, self.catalog, self.wakeups, self.unsettled)
        self.settler = Settler(db, self.wakeups)

    async def topic(self, config: TopicConfig | None = None, *, name: str = TOPIC, partitions: int = 1) -> Topic:
        declaration = TopicDeclaration(lambda _present: config or TopicConfig(), (), partitions)
        return (await declare_topic(self.db, self.catalog, self.namespace, name, declaration)).value

    async def group(self, *, name: str = GROUP, topic: str = TOPIC, **config: Any) -> Group:
        wanted = GroupConfig(**{"start_from": "earliest", "retries": QUICK, **config})
        declared = await declare_group(
            self.db, self.catalog, self.wakeups, self.namespace, topic, name, lambda _present: wanted
        )
        return declared.value

    async def publish(self, *texts: str, topic: str = TOPIC, **options: Any) -> list[Published]:
        """A message for each text; ``k:1`` has the key ``k``."""
        messages = [self.message(text, **options) for text in texts]
        return each_published(await self.publisher.publish(self.namespace.id, topic, messages, batch=True))

    @staticmethod
    def message(text: str, **options: Any) -> NewMessage:
        key = text.partition(":")[0] if ":" in text else None
        return NewMessage(msgspec.json.encode(text), **{"key": key, **options})

    async def pull(
        self, wanted: int = 100, *, who: str = "", wait_ms: int = 0, group: str = GROUP, lease_ms: int | None = None
    ) -> list[Got]:
        return (await self.pull_or_why(wanted, who=who, wait_ms=wait_ms, group=group, lease_ms=lease_ms))[0]

    async def pull_or_why(
        self, wanted: int = 100, *, who: str = "", wait_ms: int = 0, group: str = GROUP, lease_ms: int | None = None
    ) -> tuple[list[Got], str | None]:
        owner = f"consumer:{who}" if who else f"pull:{secrets.token_hex(8)}"
        demand = Demand(owner, wanted, lease_ms=lease_ms)
        pulled = await self.puller.pull((self.namespace.id, TOPIC, group), demand, Patience(wait_ms))
        got = []
        for taken in pulled.taken:
            claim = taken.claim
            for piece in claim.pieces:
                for at, payload in enumerate(piece.payloads):
                    offset = piece.offsets[at] if piece.offsets else piece.first_offset + at
                    attempt = piece.attempts[at] if piece.attempts else 1
                    ack_id = AckId(taken.partition_id, pulled.group.id, claim.epoch, claim.lease_id, attempt, offset)
                    key = piece.keys[at] if piece.keys else None
                    got.append(Got(taken.partition_id & 0xFFFF, offset, key, payload, attempt, ack_id))
        return got, pulled.empty

    async def known(self, group: str = GROUP) -> Group:
        return await self.catalog.group(self.namespace.id, TOPIC, group)

    async def ack(self, got: Iterable[Got], *, group: str = GROUP) -> list[bool]:
        return await self.settler.ack(await self.known(group), [str(each.ack_id) for each in got])

    async def settle(self, verb: Any, got: Iterable[Got], *, group: str = GROUP, **how: Any) -> list[bool]:
        chosen = [Settlement(verb, each.ack_id, **how) for each in got]
        return await self.settler.settle(await self.known(group), chosen)

    async def stats(self, group: str = GROUP) -> GroupStats:
        return await group_stats(self.db, await self.known(group))

    async def lag(self, group: str = GROUP) -> int:
        return (await self.stats(group)).total("lag")


def texts(got: Sequence[Got]) -> list[str]:
    return [each.text for each in got]


@asynccontextmanager
async def replicas(
    dsn: str, count: int = 1, *, project: str = "default", **options: Any
) -> AsyncIterator[list[Replica]]:
    """``count`` replicas on one database, each with a pool and an appender of its own."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            db = await Database.open(dsn, pool_size=10)
            stack.push_async_callback(db.close)
            replica = Replica(db, await namespace_of(db, project, "default"), **options)
            running = asyncio.create_task(replica.appender.run())
            stack.push_async_callback(_ended, replica.appender, running)
            found.append(replica)
        yield found


async def _ended(appender: Appender, running: asyncio.Task[None]) -> None:
    await appender.stop()
    await running
