"""Fixtures every test may use: a database of its own, and real servers to start, stop and kill.

``LOGPOST_TEST_DATABASE_URL`` points at a real server (whose role may create databases) instead of an embedded one.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, settings

from app.storage.embedded import EmbeddedPostgres
from app.storage.migrate import migrate
from tests.app_client import serving
from tests.servers import Servers

# How long an example takes is the machine's affair.
settings.register_profile("logpost", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("logpost")

# A process started by nohup ignores it, and so would every server that the tests start and stop by it.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
async def postgres_dsn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """One Postgres for the session (for each xdist worker), without fsync: only tests of durability need that."""
    if given := os.environ.get("LOGPOST_TEST_DATABASE_URL"):
        yield given
        return
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False)
    try:
        await postgres.start()
        yield postgres.dsn
    finally:
        await postgres.stop()


@pytest.fixture(scope="session")
async def template(postgres_dsn: str) -> AsyncIterator[str]:
    """The name of a database that the real migrations have made, to be copied."""
    name = f"logpost_template_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(postgres_dsn)
    await admin.execute(f"create database {name}")
    try:
        await migrate(with_database(postgres_dsn, name))
        yield name
    finally:
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()


@pytest.fixture
async def dsn(postgres_dsn: str, template: str) -> AsyncIterator[str]:
    """A fresh, migrated database for this test alone."""
    name = f"logpost_test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres_dsn)
    try:
        # Copying files is twice as fast here as writing pages to the WAL.
        await admin.execute(f"create database {name} template {template} strategy file_copy")
        yield with_database(postgres_dsn, name)
    finally:
        await admin.execute(f"drop database if exists {name} with (force)")
        await admin.close()


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    """Starts real ``logpost serve`` process trees; whatever still runs at the end of the test is stopped."""
    started = Servers(tmp_path)
    yield started
    await started.stop_all()


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process, on this test's database, with default settings."""
    async with serving(dsn) as client:
        yield client
