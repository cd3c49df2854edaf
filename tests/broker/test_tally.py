"""What becomes of a message is counted once, for Prometheus and in the log."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app import metrics
from app.broker.wakeups import Wakeups
from app.domain.group import Retries
from app.loops.rescue import rescue_once
from tests.broker.world import Replica

EVENTS = ("published", "duplicate", "claimed", "acked", "nacked", "dead", "discarded", "filtered", "expired", "lost",
          "repaired")  # fmt: skip

Counted = Callable[[], dict[str, int]]


@pytest.fixture
def counted() -> Counted:
    """What was counted since the last call, without zeros."""
    seen: dict[str, float] = {}

    def since() -> dict[str, int]:
        now = {event: getattr(metrics, event)._value.get() for event in EVENTS}
        changed = {event: int(now[event] - seen.get(event, 0)) for event in EVENTS if now[event] != seen.get(event, 0)}
        seen.update(now)
        return changed

    since()
    return since


async def test_a_publish_counts_what_it_stored_and_what_was_there(replica: Replica, counted: Counted) -> None:
    await replica.topic()
    await replica.publish("a", "b")
    assert counted() == {"published": 2}
    await replica.publish("c", idempotency_key="once")
    await replica.publish("c", idempotency_key="once")
    assert counted() == {"published": 1, "duplicate": 1}


async def test_every_end_of_a_delivery_is_counted(replica: Replica, counted: Counted) -> None:
    await replica.topic()
    await replica.group(retries=Retries(max=0, strategy="fixed", base_delay=1, max_delay=1))
    await replica.publish("a", "b", "c")
    got = await replica.pull()
    assert counted() == {"published": 3, "claimed": 3}
    await replica.ack(got[:1])
    await replica.ack(got[:1])
    assert counted() == {"acked": 1}
    await replica.settle("nack", got[1:2])
    await replica.settle("discard", got[2:])
    assert counted() == {"nacked": 1, "dead": 1, "discarded": 1}


async def test_what_a_filter_hides_and_what_is_past_its_time_is_counted(replica: Replica, counted: Counted) -> None:
    await replica.topic()
    await replica.group(filter="message == 'a'")
    await replica.publish("b", "a", "c")
    await replica.publish("a", ttl_ms=1)
    counted()
    assert len(await replica.pull()) == 1
    assert counted() == {"claimed": 1, "filtered": 2, "expired": 1}


async def test_a_lease_that_ends_for_the_last_time_is_counted_as_dead_by_whoever_finds_it(
    replica: Replica, counted: Counted
) -> None:
    await replica.topic()
    group = await replica.group(retries=Retries(max=0, strategy="fixed", base_delay=1, max_delay=1))
    await replica.publish("a", "b")
    await replica.pull(1)
    await _end_leases(replica, group.id)
    counted()
    await replica.pull(1)
    assert counted() == {"claimed": 1, "dead": 1}
    await _end_leases(replica, group.id)
    await rescue_once(replica.db, Wakeups(), batch_size=10)
    assert counted() == {"repaired": 1, "dead": 1}


async def test_what_retention_took_before_it_was_read_is_counted(replica: Replica, counted: Counted) -> None:
    topic = await replica.topic()
    await replica.group()
    await replica.publish("a", "b", "c")
    await replica.db.execute("update partitions set first_offset = 3 where topic_id = $1", topic.id)
    counted()
    assert len(await replica.pull()) == 1
    assert counted() == {"claimed": 1, "lost": 2}


async def _end_leases(replica: Replica, group_id: int) -> None:
    await replica.db.execute("update leases set deadline = clock_timestamp() where group_id = $1", group_id)
