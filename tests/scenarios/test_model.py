"""The broker beside a small model of what it promises, driven in any order that Hypothesis can think of.

Two replicas on one database take turns. The model does not foretell what a pull hands out; it knows where every message
is and says whether what came was allowed, and whether the counts agree.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.broker.pause import pause_group, resume_group
from app.broker.purge import purge
from app.broker.redrive import redrive_all
from app.broker.seek import seek
from app.domain.group import Group, Ordering, Retries
from app.domain.partition import partition_id
from app.domain.topic import Topic
from app.storage import rescue
from tests.broker.calendar import end_leases, make_due
from tests.broker.world import TOPIC, Got, Replica, replicas
from tests.conftest import with_database

EXAMPLES = int(os.environ.get("LOGPOST_TEST_MODEL_EXAMPLES", "25"))
STEPS = int(os.environ.get("LOGPOST_TEST_MODEL_STEPS", "40"))
MAX_ATTEMPTS = 3
UNSETTLED = ("ahead", "leased", "retrying", "held")

Place = tuple[int, int]  # partition number, offset


@dataclass
class Fate:
    """Where a message is, how often it failed in a row, and the delivery that may settle it."""

    key: str | None
    where: str = "ahead"
    failures: int = 0
    redriven: bool = False
    delivery: Got | None = None


@dataclass
class Model:
    ordering: Ordering
    messages: dict[Place, Fate] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    dead_letters: set[Place] = field(default_factory=set)
    acked: int = 0

    def count(self, *where: str) -> int:
        return sum(fate.where in where for fate in self.messages.values())

    def before(self, place: Place) -> Iterable[Fate]:
        """Earlier messages of its key."""
        key = self.messages[place].key
        return (fate for (number, offset), fate in self.messages.items()
                if key is not None and fate.key == key and number == place[0] and offset < place[1])  # fmt: skip

    def hand_out(self, got: list[Got]) -> None:
        """Checks one pull against the promises, message by message in its order."""
        now = {(each.partition, each.offset) for each in got}
        assert len(now) == len(got), "nothing comes twice in a pull"
        for each in got:
            place = (each.partition, each.offset)
            fate = self.messages[place]
            assert fate.where in ("ahead", "retrying", "held"), f"{place} was {fate.where}"
            assert each.attempt == fate.failures + 1
            if self.ordering != "none":
                for earlier in self.before(place):
                    ok = earlier.where in ("dead", "settled") or (earlier.where == "leased" and earlier.delivery in got)
                    assert ok, f"{place} came while an earlier one of its key was {earlier.where}"
            fate.where, fate.delivery = "leased", each

    def fail(self, places: list[Place]) -> None:
        for place in places:
            fate = self.messages[place]
            fate.failures += 1
            fate.delivery = None
            fate.where = "retrying"
            if fate.failures >= MAX_ATTEMPTS:
                fate.where = "dead"
                self.dead_letters.add(place)
        for place in places:
            if self.messages[place].where == "retrying" and self.ordering != "none":
                self.hold_after(place)

    def hold_after(self, place: Place) -> None:
        head = self.messages[place]
        for (number, offset), fate in self.messages.items():
            later = fate.key == head.key is not None and number == place[0] and offset > place[1]
            if later and fate.where == "leased":
                fate.where, fate.delivery = "held", None

    def move(self, positions: dict[int, int]) -> None:
        for (number, offset), fate in self.messages.items():
            if number not in positions:
                continue
            if offset >= positions[number]:
                fate.where, fate.failures = "ahead", 0
            elif fate.where != "dead":
                fate.where = "settled"
            fate.delivery, fate.redriven = None, False


class Machine(RuleBasedStateMachine):
    """Rules pick what they work on by numbers, which shrink better than bundles of things that come and go."""

    admin_dsn = ""
    template = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.name = f"logpost_model_{secrets.token_hex(6)}"
        self.stale: list[Got] = []
        self.is_paused = False

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize(ordering=st.sampled_from(["partition", "key", "none"]), partitions=st.integers(1, 2))
    def begin(self, ordering: Ordering, partitions: int) -> None:
        self.model = Model(ordering)
        self.run(self._begin(ordering, partitions))

    async def _begin(self, ordering: Ordering, partitions: int) -> None:
        admin = await asyncpg.connect(self.admin_dsn)
        await admin.execute(f"create database {self.name} template {self.template} strategy file_copy")
        await admin.close()
        self.replicas = await self.stack.enter_async_context(replicas(with_database(self.admin_dsn, self.name), 2))
        self.topic: Topic = await self.replicas[0].topic(partitions=partitions)
        retries = Retries(MAX_ATTEMPTS - 1, "fixed", 1, 1)
        self.group: Group = await self.replicas[0].group(ordering=ordering, retries=retries)

    def teardown(self) -> None:
        if hasattr(self, "model"):
            self.run(self._end())
        self.runner.close()

    async def _end(self) -> None:
        await self.stack.aclose()
        admin = await asyncpg.connect(self.admin_dsn)
        await admin.execute(f"drop database if exists {self.name} with (force)")
        await admin.close()

    def one_of(self, number: int) -> Replica:
        return self.replicas[number % len(self.replicas)]

    def leased(self) -> list[Place]:
        return sorted(place for place, fate in self.model.messages.items() if fate.where == "leased")

    def chosen(self, picks: list[int]) -> list[Place]:
        leased = self.leased()
        return sorted({leased[pick % len(leased)] for pick in picks}) if leased else []

    def deliveries(self, places: list[Place]) -> list[Got]:
        return [got for place in places if (got := self.model.messages[place].delivery) is not None]

    @rule(keys=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=6), by=st.integers(0, 1))
    def publish(self, keys: list[str | None], by: int) -> None:
        texts = [f"{key}:x" if key else "x" for key in keys]
        published = self.run(self.one_of(by).publish(*texts))
        for key, each in zip(keys, published, strict=True):
            self.model.last[each.partition] += 1
            assert each.offset == self.model.last[each.partition], "offsets are contiguous"
            self.model.messages[each.partition, each.offset] = Fate(key)

    @rule(wanted=st.integers(1, 5), by=st.integers(0, 1))
    def pull(self, wanted: int, by: int) -> None:
        got, empty = self.run(self.one_of(by).pull_or_why(wanted))
        assert len(got) <= wanted
        assert (empty is None) == bool(got)
        if self.is_paused:
            assert empty == "paused"
        self.model.hand_out(got)

    @rule(picks=st.lists(st.integers(0, 50), min_size=1, max_size=4), by=st.integers(0, 1))
    def ack(self, picks: list[int], by: int) -> None:
        places = self.chosen(picks)
        if not places:
            return
        assert self.run(self.one_of(by).ack(self.deliveries(places))) == [True] * len(places)
        for place in places:
            fate = self.model.messages[place]
            fate.where, fate.delivery, fate.redriven = "settled", None, False
            self.model.acked += 1

    @rule(pick=st.integers(0, 50), by=st.integers(0, 1))
    def nack(self, pick: int, by: int) -> None:
        self._settle_badly("nack", self.chosen([pick]), by)

    @rule(pick=st.integers(0, 50), by=st.integers(0, 1))
    def discard(self, pick: int, by: int) -> None:
        places = self.chosen([pick])
        if places:
            assert self.run(self.one_of(by).settle("discard", self.deliveries(places))) == [True]
            self.model.messages[places[0]].where = "settled"

    @rule(pick=st.integers(0, 50), by=st.integers(0, 1))
    def extend(self, pick: int, by: int) -> None:
        places = self.chosen([pick])
        if places:
            assert self.run(self.one_of(by).settle("extend", self.deliveries(places), timeout_ms=60_000)) == [True]

    def _settle_badly(self, verb: str, places: list[Place], by: int) -> None:
        if places:
            before = {place: self.model.messages[place].delivery for place in self.leased()}
            assert self.run(self.one_of(by).settle(verb, self.deliveries(places))) == [True] * len(places)
            self.model.fail(places)
            self.stale += [got for place, got in before.items()
                           if got is not None and self.model.messages[place].delivery is None]  # fmt: skip

    @rule(by=st.integers(0, 1))
    def expire(self, by: int) -> None:
        """Every lease ends at once, and whoever looks next takes back what they held."""
        leased = self.leased()
        self.stale += self.deliveries(leased)
        replica = self.one_of(by)
        self.run(end_leases(replica.db))
        for number in range(self.topic.partitions):
            self.run(rescue.expire(replica.db, partition_id(self.topic.id, number), self.group.id))
        self.model.fail(leased)

    @rule()
    def let_time_pass(self) -> None:
        self.run(make_due(self.replicas[0].db))

    @precondition(lambda self: bool(self.stale))
    @rule(pick=st.integers(0, 50), by=st.integers(0, 1), verb=st.sampled_from(["ack", "nack", "discard", "extend"]))
    def settle_what_is_stale(self, pick: int, by: int, verb: str) -> None:
        got = self.stale[pick % len(self.stale)]
        assert self.run(self.one_of(by).settle(verb, [got], timeout_ms=60_000)) == [False]

    @rule(position=st.sampled_from(["earliest", "latest"]) | st.integers(0, 12), by=st.integers(0, 1))
    def seek(self, position: Any, by: int) -> None:
        self.stale += self.deliveries(self.leased())
        replica = self.one_of(by)
        self.model.move(self.run(seek(replica.db, replica.wakeups, self.group, position)))

    @rule(by=st.integers(0, 1))
    def pause(self, by: int) -> None:
        self.run(pause_group(self.one_of(by).db, self.group))
        self.is_paused = True

    @rule(by=st.integers(0, 1))
    def resume(self, by: int) -> None:
        replica = self.one_of(by)
        self.run(resume_group(replica.db, replica.wakeups, self.group))
        self.is_paused = False

    @rule(by=st.integers(0, 1))
    def purge(self, by: int) -> None:
        self.stale += self.deliveries(self.leased())
        assert self.run(purge(self.one_of(by).db, self.topic)) == len(self.model.messages)
        self.model.messages.clear()
        self.model.dead_letters.clear()

    @precondition(lambda self: bool(self.model.dead_letters))
    @rule(by=st.integers(0, 1))
    def retry_the_dead(self, by: int) -> None:
        replica = self.one_of(by)
        count = self.run(redrive_all(replica.db, replica.wakeups, self.group))
        assert count == len(self.model.dead_letters)
        for place in self.model.dead_letters:
            fate = self.model.messages[place]
            if fate.where in ("dead", "settled"):
                fate.where, fate.failures, fate.redriven = "held", 0, True
        self.model.dead_letters.clear()

    @precondition(lambda self: self.topic.partitions < 4)
    @rule(by=st.integers(0, 1))
    def raise_partitions(self, by: int) -> None:
        self.topic = self.run(self.one_of(by).topic(partitions=self.topic.partitions + 1))
        for replica in self.replicas:
            replica.catalog.forget_topic(replica.namespace.id, TOPIC)
        self.group = self.run(self.one_of(by).known())

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        if not hasattr(self, "model"):
            return
        stats = self.run(self.replicas[0].stats())
        model = self.model
        assert stats.total("leased") == model.count("leased")
        assert stats.total("retrying") == model.count("retrying")
        assert stats.total("ahead") + stats.total("held") == model.count("ahead", "held")
        assert stats.total("lag") == model.count(*UNSETTLED)
        assert stats.letters == len(model.dead_letters)
        assert stats.total("acked") == model.acked
        for standing in stats.standings:
            unsettled = [offset for (number, offset), fate in model.messages.items()
                         if number == standing.number and fate.where in UNSETTLED and not fate.redriven]  # fmt: skip
            assert standing.last_offset == model.last[standing.number]
            assert standing.committed_offset == min(unsettled, default=standing.last_offset + 1) - 1


def test_the_broker_does_what_the_model_says(postgres_dsn: str, template: str) -> None:
    machine = type("TheMachine", (Machine,), {"admin_dsn": postgres_dsn, "template": template})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
