"""Push as its users see it: two replicas in this process, and a receiver that misbehaves on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.push.world import World, replicated
from tests.receiver import Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def world(dsn: str, receiver: Receiver) -> AsyncIterator[World]:
    """Two replicas. Their leases are long, so that none ends by itself where a test counts what is sent."""
    async with replicated(dsn, receiver) as world:
        yield world
