"""Dispatcher: one push group in one process, from the claim to the last settle."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime

from app.broker.catalog import Catalog
from app.broker.demand import Demand, Pulled
from app.broker.line import Patience
from app.broker.pull import Puller
from app.broker.settle import Settler
from app.domain import rate
from app.domain.errors import NotFound, SecretUnreadable, ShuttingDown, Unavailable
from app.domain.group import Group
from app.loops.loop import backoff_s, wait_for
from app.loops.push.courier import Courier
from app.loops.push.gate import Gate
from app.loops.push.hand import Hand
from app.loops.push.leased import leased_of
from app.loops.push.ledger import Ledger
from app.storage.database import Database
from app.storage.endpoints import Pushed
from app.telemetry import log
from app.webhook.send import Sender

# A claim waits until this part of the slots is free, yet not for long: what is there may be all there will be.
GOOD_PART = 4
GATHER_S = 0.01
PATIENCE_MS = 30_000
MAX_CLAIM = 1000
# While nothing may be sent: how long another replica's news may take to be heard.
LOOK_AGAIN_S = 1.0
# After the time to drain: for putting away what there is.
LAST_S = 3.0


@dataclass(frozen=True, slots=True)
class Pushing:
    """What all dispatchers of a process share. ``lease_ms``: lockTtlMs."""

    db: Database
    catalog: Catalog
    puller: Puller
    settler: Settler
    sender: Sender
    replica_id: str
    lease_ms: int


class Dispatcher:
    """``run`` returns when the group is gone, is not pushed any more, or ``stop`` was called and all is put away."""

    def __init__(self, pushed: Pushed, shared: Pushing) -> None:
        self._key = pushed.namespace_id, pushed.topic, pushed.name
        self._group_id = pushed.group_id
        self._shared = shared
        self._clock = asyncio.get_running_loop().time
        self._stopped = asyncio.Event()
        self._patience: Patience | None = None
        self._courier: Courier | None = None
        self._unreadable: str | None = None  # what the log was told of

    def stop(self) -> None:
        """Nothing more is claimed; what is on the way may end; the rest goes back."""
        self._stopped.set()
        if self._patience is not None:
            self._patience.end()
        if self._courier is not None:
            self._courier.stop()

    async def run(self) -> None:
        group = await self._group()
        if group is None:
            return
        shared = self._shared
        hand = Hand(shared.db, group.id, lease_ms=shared.lease_ms)
        ledger = Ledger(shared.db, shared.settler, group, hand.drop)
        try:
            async with asyncio.TaskGroup() as tasks:
                gate = Gate(shared.db, group.id)
                self._courier = Courier(shared.db, shared.sender, gate, hand, ledger, group, tasks.create_task)
                keeping, writing = tasks.create_task(hand.keep()), tasks.create_task(ledger.run())
                await self._work(self._courier)
                self._courier.stop()
                while hand.held:
                    hand.freed.clear()
                    await hand.freed.wait()
                keeping.cancel()
                writing.cancel()
        finally:
            self._courier = None
            await _put_away(ledger, hand)

    async def _group(self) -> Group | None:
        """None when it is gone, or we are told to stop first."""
        failures = 0
        while not self._stopped.is_set():
            try:
                group = await self._shared.catalog.group(*self._key)
            except NotFound:
                return None
            except Unavailable:
                failures += 1
                await wait_for(self._stopped, backoff_s(failures))
            else:
                return group if group.id == self._group_id and group.config.delivery.mode == "push" else None
        return None

    async def _work(self, courier: Courier) -> None:
        failures = 0
        while not self._stopped.is_set() and (group := await self._group()) is not None:
            _adopt(courier, group)
            if not self._may_read(courier):
                await wait_for(self._stopped, LOOK_AGAIN_S)
                continue
            try:
                await courier.gate.refresh()
                if (wait_ms := courier.gate.wait_ms()) > 0:
                    await wait_for(self._stopped, min(wait_ms / 1000, LOOK_AGAIN_S))
                elif (wanted := await self._room(courier)) > 0:
                    courier.unsure.clear()
                    await self._take(courier, await self._pull(wanted))
                failures = 0
            except (ShuttingDown, NotFound):
                return
            except Unavailable:
                failures += 1
                await wait_for(self._stopped, backoff_s(failures))

    def _may_read(self, courier: Courier) -> bool:
        """False while it has secrets that cannot be read here: replicas that can may push it all the same."""
        group = courier.group
        try:
            group.config.delivery.require_readable(courier.now())
        except SecretUnreadable as error:
            if self._unreadable != str(error):
                log.error("push_without_secret", topic=group.topic, group=group.name, error=str(error))
            self._unreadable = str(error)
            return False
        self._unreadable = None
        return True

    async def _room(self, courier: Courier) -> int:
        """How many may be claimed, once it is worth a claim; 0 to look again."""
        hand, gate, config = courier.hand, courier.gate, courier.group.config
        most, good = MAX_CLAIM, max(1, config.concurrency // GOOD_PART)
        if gate.is_trying:
            most = 0 if hand.held else 1
        elif gate.per_second is not None:
            most = int(rate.burst(gate.per_second)) - gate.waiting
        hand.freed.clear()
        free = min(config.concurrency - len(hand.held), most)
        if free <= 0:
            await wait_for(hand.freed, LOOK_AGAIN_S if gate.per_second is None else 1 / gate.per_second)
            return 0
        until = self._clock() + GATHER_S
        while free < min(good, most) and (left := until - self._clock()) > 0:
            hand.freed.clear()
            if not await wait_for(hand.freed, min(left, GATHER_S / 2)):
                break  # what else is in hand may hang
            free = min(config.concurrency - len(hand.held), most)
        return free

    async def _pull(self, wanted: int) -> Pulled:
        owner = f"push:{self._shared.replica_id}:{self._group_id}"
        self._patience = Patience(PATIENCE_MS)
        if self._stopped.is_set():
            self._patience.end()
        demand = Demand(owner, wanted, lease_ms=self._shared.lease_ms, group_id=self._group_id)
        return await self._shared.puller.pull(self._key, demand, self._patience)

    async def _take(self, courier: Courier, pulled: Pulled) -> None:
        if not pulled.taken:
            return
        with contextlib.suppress(Unavailable):
            # What comes back may come from a replica that was just told to wait.
            came_back = any(piece.offsets for taken in pulled.taken for piece in taken.claim.pieces)
            await courier.gate.refresh(must=came_back)
        deadline = pulled.taken[-1].claim.deadline
        if deadline is not None:
            ahead = (deadline - datetime.now(UTC)).total_seconds() - self._shared.lease_ms / 1000
            courier.clock_ahead_s = ahead
        if pulled.group.config.delivery.mode == "push":
            _adopt(courier, pulled.group)
        else:
            courier.stop()
        courier.deliver(leased_of(pulled))


def _adopt(courier: Courier, group: Group) -> None:
    """Goes on by what the group is now."""
    courier.group = courier.ledger.group = group
    limit = group.config.rate_limit
    courier.gate.per_second = None if limit is None else limit.per_second
    courier.gate.timeout_ms = group.config.ack_timeout_ms


async def _put_away(ledger: Ledger, hand: Hand) -> None:
    """Writes down what has ended, and hands back what has not: after a drain that took too long, or a defect."""
    try:
        async with asyncio.timeout(LAST_S):
            await ledger.write()
            left = [leased for leased in hand.held if not leased.is_lost]
            if left:
                log.info("push_handed_back", messages=len(left))
                await ledger.hand_back_now(left)
            await ledger.record()
    except (Unavailable, TimeoutError) as error:
        log.warning("push_left_to_leases", messages=len(hand.held), error=str(error))
