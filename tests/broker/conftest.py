"""Replicas for the tests of the broker's promises: ``pair`` is two of them on one database, for what has to hold
whoever is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.broker.world import Replica, replicas


@pytest.fixture
async def replica(dsn: str) -> AsyncIterator[Replica]:
    async with replicas(dsn) as (one,):
        yield one


@pytest.fixture
async def pair(dsn: str) -> AsyncIterator[tuple[Replica, Replica]]:
    async with replicas(dsn, 2) as (one, other):
        yield one, other
