"""Replicas hint at each other; losing the connection for that costs time, never a message."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from app.broker.wakeups import Wakeups
from app.domain.partition import partition_id
from app.loops import listen
from app.loops.elect import Election
from app.loops.listen import Listener, Notifier
from app.loops.supervisor import Supervisor
from app.storage import notifications, replicas
from app.storage.database import Database
from app.storage.replicas import Replica as ReplicaRow
from tests.servers import PATIENCE_S, wait_until

TOPIC = 7
PARTITION = partition_id(TOPIC, 3)


class Replica:
    """One process's wake-ups with both loops, and what its reader of one topic was told."""

    def __init__(self, db: Database, name: str) -> None:
        self.wakeups = Wakeups()
        self.hints: asyncio.Queue[list[int]] = asyncio.Queue()
        self.wakeups.listen(TOPIC, None, self._on_hint)
        self.listener = Listener(db, self.wakeups, name)
        self.notifier = Notifier(db, self.wakeups, name)
        self.election = Election(db, self.wakeups, ReplicaRow(name, "localhost", 1))

    def _on_hint(self, partitions: Iterable[int]) -> None:
        self.hints.put_nowait(list(partitions))

    async def start(self, supervisor: Supervisor) -> None:
        prefix = f"{id(self)}"
        supervisor.start(f"listen {prefix}", self.listener.run, stop=self.listener.stop, foundation=True)
        supervisor.start(f"notify {prefix}", self.notifier.run, stop=self.notifier.stop, foundation=True)
        assert await self.hint() == []  # everybody looks at everything once it listens
        assert self.wakeups.listening

    async def hint(self) -> list[int]:
        async with asyncio.timeout(PATIENCE_S):
            return await self.hints.get()


async def kill(db: Database, application_name: str) -> int:
    killed: int = await db.fetchval(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity "
        "where application_name = $1 and datname = current_database()",
        application_name,
    )
    return killed


async def test_what_one_replica_did_wakes_the_readers_of_another(db: Database) -> None:
    one, other = Replica(db, "one"), Replica(db, "other")
    async with Supervisor() as supervisor:
        await one.start(supervisor)
        await other.start(supervisor)
        one.wakeups.published([PARTITION])
        assert await one.hint() == [PARTITION]  # in its own process, at once
        assert await other.hint() == [PARTITION]
        other.wakeups.freed(1, [PARTITION])
        one.wakeups.published([PARTITION + 1])
        assert await other.hint() == [PARTITION + 1]
        assert await one.hint() == [PARTITION + 1]
        assert one.hints.empty()  # its own notifications were not heard a second time
    assert not one.wakeups.listening


async def test_a_lost_listen_comes_back_and_everybody_looks_at_everything(db: Database) -> None:
    replica = Replica(db, "one")
    async with Supervisor() as supervisor:
        await replica.start(supervisor)
        assert await kill(db, "logpost listen") == 1
        assert await replica.hint() == []
        assert replica.wakeups.listening


async def test_while_nobody_listens_it_is_known(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica(db, "one")
    monkeypatch.setattr(listen, "backoff_s", lambda _failures: 3600.0)
    async with Supervisor() as supervisor:
        await replica.start(supervisor)
        await kill(db, "logpost listen")
        await wait_until(lambda: not replica.wakeups.listening)


async def test_a_session_that_no_longer_listens_is_noticed_although_it_answers(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "CHECK_INTERVAL_S", 0.05)
    replica = Replica(db, "one")
    async with Supervisor() as supervisor:
        await replica.start(supervisor)
        subscription = replica.listener._subscription
        assert subscription is not None
        await subscription._connection.execute("unlisten *")  # as a pooler does that changes sessions
        assert await replica.hint() == []


async def test_hints_are_sent_together_while_busy(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    send = notifications.send

    async def counting(connection: object, payloads: list[str]) -> None:
        sent.append(len(payloads))
        await send(connection, payloads)  # type: ignore[arg-type]

    monkeypatch.setattr(notifications, "send", counting)
    replica = Replica(db, "one")
    async with Supervisor() as supervisor:
        await replica.start(supervisor)
        clock = asyncio.get_running_loop().time
        began = clock()
        while clock() - began < 0.2 or len(sent) < 2:
            replica.wakeups.published([PARTITION])
            await asyncio.sleep(0)
    assert 2 <= len(sent) <= (clock() - began) / listen.COALESCE_S + 2


async def test_a_lost_sender_is_replaced(db: Database) -> None:
    one, other = Replica(db, "one"), Replica(db, "other")
    async with Supervisor() as supervisor:
        await one.start(supervisor)
        await other.start(supervisor)
        one.wakeups.published([PARTITION])
        assert await other.hint() == [PARTITION]
        assert await kill(db, "logpost notify") == 1
        async with asyncio.timeout(PATIENCE_S):
            while other.hints.empty():  # the first may be lost with the connection
                one.wakeups.published([PARTITION])
                await asyncio.sleep(0.02)


async def test_the_last_hints_are_sent_before_the_end(db: Database) -> None:
    one, other = Replica(db, "one"), Replica(db, "other")
    async with Supervisor() as supervisor:
        await other.start(supervisor)
        async with Supervisor() as stopping:
            await one.start(stopping)
            one.notifier.stop()
            one.wakeups.published([PARTITION])
        assert await other.hint() == [PARTITION]


async def test_a_replica_that_is_alone_tells_nobody(db: Database) -> None:
    one = Replica(db, "one")
    async with Supervisor() as supervisor:
        await one.start(supervisor)
        for _ in range(2):
            await one.election.elect_once()
        await wait_until(lambda: not one.wakeups.outgoing.is_set())  # its greeting is sent
        one.wakeups.published([PARTITION])
        one.wakeups.freed(1, [PARTITION])
        assert one.wakeups.take_outgoing() == []
        assert await one.hint() == [PARTITION]  # its own readers hear as ever


async def test_a_replica_that_comes_is_told_from_its_first_moment_on(db: Database) -> None:
    one, other = Replica(db, "one"), Replica(db, "other")
    async with Supervisor() as supervisor:
        await one.start(supervisor)
        await one.election.elect_once()
        await other.start(supervisor)
        heard = one.wakeups.heard_count
        await other.election.elect_once()
        await wait_until(lambda: one.wakeups.heard_count > heard)
        one.wakeups.published([PARTITION])
        assert await other.hint() == [PARTITION]


async def test_who_greets_while_others_are_counted_is_not_overlooked(db: Database) -> None:
    one = Replica(db, "one")
    async with Supervisor() as supervisor:
        await one.start(supervisor)
        before = one.wakeups.heard_count
        one.wakeups.heard("h")
        one.wakeups.counted(0, before)  # of a moment before it was there
        one.wakeups.published([PARTITION])
        assert one.wakeups.take_outgoing() != []


async def test_without_a_listen_nobody_believes_to_be_alone(db: Database) -> None:
    one = Replica(db, "one")
    await one.election.elect_once()
    one.wakeups.published([PARTITION])
    assert len(one.wakeups.take_outgoing()) == 2
    assert await one.hint() == [PARTITION]
    async with Supervisor() as supervisor:
        await one.start(supervisor)
        await one.election.elect_once()
        await kill(db, "logpost listen")
        assert await one.hint() == []  # somebody may have greeted meanwhile
        one.wakeups.published([PARTITION])
        assert one.wakeups.take_outgoing() != []


async def test_a_replica_that_has_left_is_told_no_more(db: Database) -> None:
    one, other = Replica(db, "one"), Replica(db, "other")
    async with Supervisor() as supervisor:
        await one.start(supervisor)
        await other.election.elect_once()
        await one.election.elect_once()
        await wait_until(lambda: not one.wakeups.outgoing.is_set())
        one.wakeups.published([PARTITION])
        assert one.wakeups.take_outgoing() != []
        await replicas.leave(db, "other")
        await one.election.elect_once()
        one.wakeups.published([PARTITION])
        assert one.wakeups.take_outgoing() == []
