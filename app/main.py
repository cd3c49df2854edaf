"""The composition root: settings → database → broker → loops → the ASGI application.

    Edge ──▶ Lane ──▶ FastAPI
     │        │          └── everything else
     │        └── publish, pull, settle
     └── what holds for every request

Everything that needs a running event loop is made in the lifespan and hangs on ``app.state.parts`` of the FastAPI
application, where ``api/dependencies.py`` finds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from app.api.application import application
from app.api.auth import Gate
from app.api.dependencies import Defaults, Parts
from app.api.edge import Edge
from app.broker.catalog import Catalog
from app.broker.wakeups import Wakeups
from app.domain.group import DeadLetters, GroupConfig, Retries
from app.domain.topic import Idempotency, Retention, TopicConfig
from app.settings import Settings
from app.storage.database import Database
from app.webhook.address import Policy


def create_app(settings: Settings, dsn: str) -> ASGIApp:
    """The application on the database at ``dsn``, which has been migrated. It serves once its lifespan has begun."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = await Database.open(dsn, pool_size=settings.database_pool_size)
        app.state.parts = _parts(settings, database)
        try:
            yield
        finally:
            await database.close()

    app = application(lifespan=lifespan, docs=settings.docs)
    loopback_only = settings.loopback_only and settings.root_key is None and not settings.insecure
    return Edge(app, origins=settings.cors_origin_list, loopback_only=loopback_only)


def _parts(settings: Settings, database: Database) -> Parts:
    return Parts(
        db=database,
        catalog=Catalog(database),
        wakeups=Wakeups(),
        gate=Gate(database, project=settings.project, environment=settings.environment),
        defaults=_defaults(settings),
        policy=Policy(settings.push_port_ranges, settings.push_networks),
    )


def _defaults(settings: Settings) -> Defaults:
    return Defaults(
        topic=TopicConfig(
            retention=Retention(settings.retention_max_age_ms, settings.retention_max_count),
            idempotency=Idempotency(settings.idempotency_window_ms),
        ),
        partitions=settings.partitions,
        group=GroupConfig(
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
