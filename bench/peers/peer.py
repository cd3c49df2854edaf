"""The shape of a driver: the server that is measured, and its leanest client."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

Publish = Callable[[], Awaitable[None]]  # returns when everything in it was acknowledged

# How long a ``take`` waits where there is nothing.
WAIT_S = 1.0


class Taken(NamedTuple):
    """Messages that were taken and acked. ``raw`` holds their bodies, among whatever the protocol puts around them."""

    messages: int
    raw: bytes


class Session(Protocol):
    """One connection of one client."""

    def one(self, body: bytes) -> Publish:
        """To publish a message by itself. ``body`` is JSON."""

    def batch(self, bodies: Sequence[bytes]) -> Publish:
        """To publish many in the way this peer is fastest."""

    async def take(self, group: str, wanted: int, *, each: bool) -> Taken:
        """Takes up to ``wanted`` as soon as there is one and acks them: together, or with ``each`` one by one.

        One by one means: a call for each, and the next after the answer, where the protocol answers an ack at all.
        """

    async def close(self) -> None: ...


class Peer(Protocol):
    title: str
    durability: str  # what an acknowledged publish means here, in a sentence
    durable: bool  # that it is on the disk
    copies: bool  # a message for n groups is stored n times
    lacks: frozenset[str]  # scenarios it has no way to do

    def missing(self) -> str:
        """Why it cannot be measured here; empty if it can."""

    async def start(self, directory: Path) -> None:
        """Returns when it serves. It writes into ``directory`` only and listens on loopback only."""

    @property
    def version(self) -> str:
        """Its name and version, known once it has started."""

    @property
    def place(self) -> str:
        """Where its sessions connect to."""

    async def fan_out(self, topic: str, groups: int) -> None:
        """Makes a topic that is read by ``g0``, ``g1`` and so on, each of which gets every message."""

    async def size_on_disk(self) -> int:
        """Bytes that hold messages; for Postgres its tables and indexes, for its WAL is used again and again."""

    async def stop(self) -> None: ...


class Driver(NamedTuple):
    """Both sides of a peer, found by name, so that a generator imports no more than it needs."""

    module: str

    def peer(self, name: str) -> Peer:
        peers: Mapping[str, Callable[[], Peer]] = importlib.import_module(self.module).PEERS
        return peers[name]()

    async def connect(self, place: str, topic: str, groups: int) -> Session:
        session: Session = await importlib.import_module(self.module).connect(place, topic, groups)
        return session


DRIVERS = {
    "logpost": Driver("bench.peers.logpost"),
    "logpost-2": Driver("bench.peers.logpost"),
    "redis": Driver("bench.peers.redis_streams"),
    "nats": Driver("bench.peers.nats_jetstream"),
    "rabbitmq": Driver("bench.peers.rabbitmq"),
    "pgmq": Driver("bench.peers.pgmq_sql"),
    "skip-locked": Driver("bench.peers.skip_locked"),
    "procrastinate": Driver("bench.peers.procrastinate_jobs"),
}
