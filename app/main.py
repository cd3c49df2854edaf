"""The composition root: settings → database → broker → loops → the ASGI application.

    Edge ──▶ Lane ──▶ FastAPI
     │        │          └── everything else
     │        └── publish, pull, settle
     └── what holds for every request

Everything that needs a running event loop is made in the lifespan and hangs on ``app.state.parts`` of the FastAPI
application, where ``api/dependencies.py`` finds it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.application import application
from app.api.auth import Gate
from app.api.dependencies import Defaults, Parts
from app.api.edge import Edge
from app.api.events import Streams
from app.api.frames import ENCODER
from app.api.lane import Entry, Lane
from app.api.polls import Polls, end_revoked_once
from app.api.publish import PublishCalls
from app.api.pull import PullCalls
from app.api.settle import SettleCalls
from app.api.shortcut import Plain, PlainPublish
from app.broker.appender import Appender
from app.broker.catalog import Catalog
from app.broker.feed import Feeds
from app.broker.publish import Publisher
from app.broker.pull import Puller
from app.broker.quotas import Quotas
from app.broker.seats import REPORT_INTERVAL_MS, Seats
from app.broker.settle import Settler
from app.broker.unsettled import COUNT_INTERVAL_MS, Unsettled
from app.broker.wakeups import Wakeups
from app.broker.window import Windows
from app.domain.errors import ShuttingDown
from app.domain.group import DeadLetters, GroupConfig, Retries
from app.domain.limits import Limits
from app.domain.topic import Idempotency, Retention, TopicConfig
from app.loops.announce import announce_loop
from app.loops.duties import Pace, start_duties
from app.loops.elect import this_replica
from app.loops.loop import Loop
from app.loops.poll import poll_loop, report_loop
from app.loops.push.dispatcher import Pushing
from app.loops.push.fleet import Fleet
from app.loops.streams import start_streams
from app.loops.supervisor import Supervisor
from app.settings import Settings
from app.storage.database import Database
from app.storage.replicas import Replica
from app.storage.vault import Vault
from app.tracing import tracing
from app.webhook.address import Policy
from app.webhook.send import Sender

# How often it is written down which keys were used.
KEY_USE_INTERVAL_MS = 5000
# How often it is asked for streams, and pulls that wait, whether their key is still one. With Keyring's STALE_S, for
# those that began meanwhile, five seconds at most.
ENDED_KEYS_INTERVAL_MS = 800


class Served:
    """The ASGI application of one process. ``drain`` has everybody who waits answered, before the process stops."""

    def __init__(self, settings: Settings, dsn: str) -> None:
        self._settings = settings
        self._dsn = dsn
        self._parts: Parts | None = None
        self._drains_until: float | None = None
        self._app: ASGIApp = self._starting
        self._plain: PlainPublish | None = None
        self._rest = application(lifespan=self._lifespan, docs=settings.docs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._rest if scope["type"] == "lifespan" else self._app)(scope, receive, send)

    def shortcut(self, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Plain | None:
        """For connections: what need not go through ASGI."""
        return None if self._plain is None else self._plain(url, headers)

    def drain(self) -> None:
        """Nothing is leased any more from now on; pulls that wait return empty, streams end."""
        if self._parts is not None:
            self._parts.puller.stop()
            self._parts.feeds.stop()
            self._parts.streams.drain()
        if self._drains_until is None:
            self._drains_until = time.monotonic() + self._settings.shutdown_timeout_ms / 1000

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        settings = self._settings
        async with (
            tracing() as traces,
            Supervisor(drain_s=settings.shutdown_timeout_ms / 1000) as supervisor,
        ):
            vault = Vault(settings.secret_key_list)
            db = await Database.open(self._dsn, pool_size=settings.database_pool_size, vault=vault)
            policy = Policy(settings.push_port_ranges, settings.push_networks)
            sender = Sender(policy, tracing=traces)
            parts = _parts(settings, db, replica := this_replica(), policy, sender)
            publisher = Publisher(db, parts.catalog, parts.appender)
            self._parts = parts
            _start(settings, supervisor, parts, replica, sender)
            app.state.parts = parts
            table = _table(settings, parts, publisher)
            if traces is not None:
                table = {path: Entry(traces.traced(path, call), right) for path, (call, right) in table.items()}
            lane = Lane(self._rest, parts.gate, parts.catalog.require, table)
            self._app = Edge(lane, origins=settings.cors_origin_list, loopback_only=_loopback_only(settings))
            if traces is None and not settings.cors_origin_list:
                self._plain = PlainPublish(
                    parts.gate, parts.catalog, publisher,
                    max_message_bytes=settings.max_message_bytes, max_batch_bytes=settings.max_batch_bytes,
                    loopback_only=_loopback_only(settings),
                )  # fmt: skip
            try:
                yield
            finally:
                self.drain()
                await supervisor.stop(self._time_to_drain())
                await sender.close()
                await db.close()

    def _time_to_drain(self) -> float:
        """Seconds left of shutdownTimeoutMs, which began with ``drain``: connections came first."""
        assert self._drains_until is not None, "drain() begins it"
        return max(self._drains_until - time.monotonic(), 0.0)

    async def _starting(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ShuttingDown("The server has not started yet.")


def create_app(settings: Settings, dsn: str) -> Served:
    """The application on the database at ``dsn``, which has been migrated. It serves once its lifespan has begun."""
    return Served(settings, dsn)


def _loopback_only(settings: Settings) -> bool:
    return settings.loopback_only and settings.root_key is None and not settings.insecure


def _parts(settings: Settings, db: Database, replica: Replica, policy: Policy, sender: Sender) -> Parts:
    catalog, wakeups, unsettled = Catalog(db), Wakeups(), Unsettled(db, settings.max_unsettled)
    settler = Settler(db, wakeups)
    return Parts(
        db=db,
        catalog=catalog,
        wakeups=wakeups,
        gate=Gate(
            db,
            Quotas(db, requests_per_s=settings.key_requests_per_s, bytes_per_s=settings.key_bytes_per_s),
            project=settings.project,
            environment=settings.environment,
            root_key=settings.root_key.get_secret_value() if settings.root_key else None,
        ),
        limits=_limits(settings),
        defaults=_defaults(settings),
        policy=policy,
        appender=Appender(
            db,
            max_messages=settings.queue_max_messages,
            max_bytes=settings.queue_max_bytes,
            on_published=wakeups.published,
        ),
        unsettled=unsettled,
        puller=Puller(db, catalog, wakeups, unsettled),
        settler=settler,
        feeds=Feeds(db, wakeups, ENCODER, poll_interval_ms=settings.poll_interval_ms),
        windows=Windows(db, wakeups, settler, lock_ttl_ms=settings.lock_ttl_ms),
        streams=Streams(),
        polls=Polls(),
        seats=Seats(db, replica.id, settings.max_streams),
        sender=sender,
    )


def _start(settings: Settings, supervisor: Supervisor, parts: Parts, replica: Replica, sender: Sender) -> None:
    pace = Pace(
        retention_interval_ms=settings.retention_interval_ms,
        attempt_retention_ms=settings.attempt_retention_ms,
        reconciliation_interval_ms=settings.reconciliation_interval_ms,
        reconciliation_batch_size=settings.reconciliation_batch_size,
    )
    supervisor.start("appender", parts.appender.run, stop=parts.appender.end, foundation=True)
    start_duties(supervisor, parts.db, parts.wakeups, replica, pace)
    start_streams(supervisor, parts.feeds, parts.windows)
    supervisor.start_loop(poll_loop(parts.puller, parts.wakeups, interval_ms=settings.poll_interval_ms))
    supervisor.start_loop(Loop("keys", parts.gate.keyring.note_used_once, interval_ms=KEY_USE_INTERVAL_MS))
    ended = partial(end_revoked_once, parts.gate.keyring, parts.streams, parts.polls)
    supervisor.start_loop(Loop("ended_keys", ended, interval_ms=ENDED_KEYS_INTERVAL_MS))
    supervisor.start_loop(Loop("seats", parts.seats.report_once, interval_ms=REPORT_INTERVAL_MS))
    supervisor.start_loop(Loop("unsettled", parts.unsettled.count_once, interval_ms=COUNT_INTERVAL_MS))
    supervisor.start_loop(report_loop(parts.db, parts.puller, replica.id))
    supervisor.start_loop(announce_loop(parts.db, parts.wakeups))
    shared = Pushing(
        parts.db, parts.catalog, parts.puller, parts.settler, sender, replica.id, lease_ms=settings.lock_ttl_ms
    )
    supervisor.start_loop(Fleet(supervisor, shared).loop)


def _table(settings: Settings, parts: Parts, publisher: Publisher) -> dict[str, Entry]:
    """What the fast lane answers."""
    publish = PublishCalls(
        publisher, max_message_bytes=settings.max_message_bytes, max_batch_bytes=settings.max_batch_bytes
    )
    pull = PullCalls(parts.puller, parts.settler, parts.polls)
    settle = SettleCalls(parts.catalog, parts.settler)
    return {
        "messages": Entry(publish.one, "publish"),
        "messages/batch": Entry(publish.batch, "publish"),
        "groups/pull": Entry(pull.pull, "consume"),
        "groups/ack": Entry(settle.ack, "consume"),
        "groups/nack": Entry(settle.nack, "consume"),
        "groups/discard": Entry(settle.discard, "consume"),
        "groups/extend": Entry(settle.extend, "consume"),
        "groups/settle": Entry(settle.settle, "consume"),
    }


def _limits(settings: Settings) -> Limits:
    return Limits(
        keys=settings.max_keys,
        topics=settings.max_topics,
        partitions=settings.max_partitions,
        partitions_per_topic=settings.max_topic_partitions,
        groups_per_topic=settings.max_topic_groups,
    )


def _defaults(settings: Settings) -> Defaults:
    return Defaults(
        topic=TopicConfig(
            retention=Retention(settings.retention_max_age_ms, settings.retention_max_count),
            idempotency=Idempotency(settings.idempotency_window_ms),
        ),
        partitions=settings.partitions,
        group=GroupConfig(
            ordering=settings.ordering,
            start_from=settings.start_from,
            ack_mode=settings.ack_mode,
            concurrency=settings.concurrency,
            batch_size=settings.batch_size,
            max_in_flight=settings.max_in_flight,
            ack_timeout_ms=settings.ack_timeout_ms,
            retries=Retries(
                settings.retries_max,
                settings.retries_strategy,
                settings.retries_base_delay_ms,
                settings.retries_max_delay_ms,
            ),
            dead_letter=DeadLetters(settings.dead_letter_enabled),
        ),
    )
