"""A duty is done by one replica at a time, and by another soon after that one is gone."""

from __future__ import annotations

import asyncio

from app.broker.wakeups import Wakeups
from app.loops.elect import Election, this_replica
from app.loops.loop import Loop
from app.loops.supervisor import Supervisor
from app.storage import replicas
from app.storage.database import Database
from tests.servers import PATIENCE_S


class Candidate:
    """What one process would have: an election and an elected loop that notes its passes."""

    def __init__(self, db: Database, ttl_s: float = 3.0) -> None:
        self.ran = asyncio.Event()
        self.election = Election(db, Wakeups(), this_replica(), interval_ms=100, ttl_s=ttl_s)
        self.loop = self.election.elected(Loop("duty", self.once, interval_ms=10))

    async def once(self) -> bool:
        self.ran.set()
        return False

    def start(self, supervisor: Supervisor) -> None:
        supervisor.start("elect", self.election.run, stop=self.election.stop, foundation=True)
        supervisor.start_loop(self.loop)

    @property
    def leads(self) -> bool:
        return self.election.leads("duty")


async def test_of_several_replicas_one_leads(db: Database) -> None:
    candidates = [Candidate(db, ttl_s=60) for _ in range(5)]
    await asyncio.gather(*(candidate.election.elect_once() for candidate in candidates))
    for _ in range(3):
        assert sum(candidate.leads for candidate in candidates) == 1
        await asyncio.gather(*(candidate.election.elect_once() for candidate in candidates))
    assert len(await replicas.alive(db)) == 5


async def test_only_the_leader_does_the_duty(db: Database) -> None:
    leader, follower = Candidate(db, ttl_s=60), Candidate(db, ttl_s=60)
    async with Supervisor() as one, Supervisor() as other:
        leader.start(one)
        async with asyncio.timeout(PATIENCE_S):
            await leader.ran.wait()
        follower.start(other)
        await asyncio.sleep(0.3)
        assert not follower.ran.is_set()


async def test_a_leader_that_dies_is_replaced_when_its_lease_ends(db: Database) -> None:
    dead, heir = Candidate(db), Candidate(db)
    await dead.election.elect_once()
    assert dead.leads
    async with Supervisor() as supervisor:
        heir.start(supervisor)
        async with asyncio.timeout(PATIENCE_S):
            await heir.ran.wait()
        assert not dead.leads  # it stopped believing in it before anybody else could have it


async def test_a_leader_that_stops_hands_over_at_once(db: Database) -> None:
    leaving, heir = Candidate(db, ttl_s=3600), Candidate(db, ttl_s=3600)
    async with Supervisor() as supervisor:
        heir_started = Supervisor()
        leaving.start(supervisor)
        async with asyncio.timeout(PATIENCE_S):
            await leaving.ran.wait()
        heir.start(heir_started)
        await supervisor.stop(PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            await heir.ran.wait()
        assert [seen.replica for seen in await replicas.alive(db)] == [heir.election.replica]
        await heir_started.stop(PATIENCE_S)


async def test_a_leader_that_cannot_reach_the_database_stops_leading(db: Database) -> None:
    candidate = Candidate(db, ttl_s=2.0)
    await candidate.election.elect_once()
    assert candidate.leads
    await asyncio.sleep(2.1)
    assert not candidate.leads


async def test_replicas_long_gone_are_forgotten(db: Database) -> None:
    gone, alive = this_replica(), this_replica()
    await replicas.beat(db, gone)
    await db.execute("update replicas set seen_at = seen_at - interval '30 seconds'")
    await replicas.beat(db, alive)
    assert [seen.replica for seen in await replicas.alive(db)] == [alive]
    assert await db.fetchval("select count(*) from replicas") == 2
    await db.execute("update replicas set seen_at = seen_at - interval '61 seconds' where id = $1", gone.id)
    await replicas.beat(db, alive)
    assert await db.fetchval("select count(*) from replicas") == 1
