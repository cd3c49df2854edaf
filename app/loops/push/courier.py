"""Courier: delivers what a dispatcher holds. Messages of one key go one after the other, all others side by side.

A queue is the messages of one key that are in hand, in order of offsets. When its first fails, the server takes back
the others; when a key is retried, the queue fills up again from there. So after every end that may have taken back
others, they are only sent once their lease was seen to live.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from app import failpoints, metrics
from app.broker import tally
from app.broker.pause import pause_group
from app.broker.settle import Settlement
from app.domain.errors import Unavailable
from app.domain.group import Group
from app.domain.outcome import Ack, Answer, Discard, Nack, Pause, Taken, Throttle, judge
from app.loops.push.gate import Gate
from app.loops.push.hand import Hand
from app.loops.push.leased import Leased
from app.loops.push.ledger import Ledger
from app.storage import attempts, rescue
from app.storage.database import Database
from app.telemetry import log
from app.webhook.request import Letterhead, delivery_request
from app.webhook.send import Sender

NEVER = float("-inf")
# How often it is asked whether the receiver has settled what it took, while others of the key wait for it.
ASK_S = 0.2
# How an endpoint fails that cannot be reached at all: whatever the message is, it has nothing to do with it.
UNREACHABLE = frozenset(("dns", "connect", "tls"))

Place = tuple[int, str]  # partition id, key


@dataclass(eq=False)
class Courier:
    """``group`` is the latest that is known; ``clock_ahead_s``: the database's clock minus this process's."""

    db: Database
    sender: Sender
    gate: Gate
    hand: Hand
    ledger: Ledger
    group: Group
    start: Callable[..., object]

    def __post_init__(self) -> None:
        self.clock_ahead_s = 0.0
        self.is_stopping = False
        # Keys of which something was taken back while a claim was under way, which may bring it all the same.
        self.unsure: set[Place] = set()
        self._queues: dict[Place, deque[Leased]] = {}
        self._taken: dict[Place, Leased] = {}
        self._letterhead: Letterhead | None = None

    @property
    def is_ordered(self) -> bool:
        return self.group.config.ordering != "none"

    @property
    def is_hook(self) -> bool:
        return self.group.is_hook

    def now(self) -> datetime:
        """The database's time."""
        return datetime.now(UTC) + timedelta(seconds=self.clock_ahead_s)

    def deliver(self, taken: Iterable[Leased]) -> None:
        """Starts on these, each behind what is in hand of its key."""
        for leased in taken:
            self.hand.held.add(leased)
            key = leased.message.key
            if key is None or not self.is_ordered:
                self.start(self._guarded(leased, deque(), None))
                continue
            place = leased.message.partition_id, key
            if place in self.unsure:
                leased.sure_at = NEVER
            queue = self._queues.get(place)
            if queue is None:
                queue = self._queues[place] = deque((leased,))
                self.start(self._in_order(place, queue))
            else:
                queue.append(leased)

    def stop(self) -> None:
        """What is not on the way yet goes back."""
        self.is_stopping = True
        for leased in self.hand.held:
            if not leased.is_sending:
                leased.cut_short()

    async def hand_back(self, returned: Iterable[Leased], place: Place | None) -> None:
        await self.ledger.hand_back(returned)
        self._doubt(place)

    async def _in_order(self, place: Place, queue: deque[Leased]) -> None:
        try:
            while queue:
                if (taken := self._taken.pop(place, None)) is not None:
                    await self._until_settled(taken)
                    self._doubt(place)
                leased = queue.popleft()
                await self._guarded(leased, queue, place)
                if leased.is_lost:
                    await self._make_way(leased, place)
        finally:
            del self._queues[place]

    async def _guarded(self, leased: Leased, queue: deque[Leased], place: Place | None) -> None:
        try:
            await self._deliver(leased, queue, place)
        except Unavailable:
            # Nothing can be written now, so nothing can be sent. The lease has not ended: it goes back when it can.
            await self.hand_back([leased], place)
        except Exception:
            log.exception("push_failed", group=self.group.name, message_id=leased.id)
            await self.hand_back([leased], place)

    async def _deliver(self, leased: Leased, queue: deque[Leased], place: Place | None) -> None:
        await self.hand.confirm([leased, *queue])
        if leased not in self.hand.held:
            return
        answer = None
        if not self.is_stopping and not self.gate.is_shut(leased.id):
            answer = await self._send(leased)
        if leased not in self.hand.held:
            return
        if answer is None:
            await self._return(leased, queue, place)
        else:
            await self._judge(leased, answer, queue, place)

    async def _send(self, leased: Leased) -> Answer | None:
        """None if it was not sent after all, or its lease was lost while it was on the way."""
        leased.task = asyncio.current_task()
        try:
            if not await self.gate.admit(leased.id) or self.is_stopping:
                return None
            leased.is_sending = True
            request = delivery_request(
                self._heading(), leased.message, message_id=leased.id, attempt=leased.attempt,
                ack_id=str(leased.ack_id), now=self.now(),
            )  # fmt: skip
            return await self.sender.send(request)
        except asyncio.CancelledError:
            # As asyncio.timeout does it, without its price for every message. Somebody else's cancellation goes on.
            if not leased.is_cut or (leased.task is not None and leased.task.uncancel() > 0):
                raise
            return None
        finally:
            leased.task = None
            leased.is_sending = False

    def _heading(self) -> Letterhead:
        """Of the group as it is now. Raises SecretUnreadable."""
        if self._letterhead is None or self._letterhead.group is not self.group:
            self._letterhead = Letterhead(self.group)
        return self._letterhead

    async def _judge(self, leased: Leased, answer: Answer, queue: deque[Leased], place: Place | None) -> None:
        outcome = judge(answer, manual=self.group.config.ack_mode == "manual")
        if self.is_hook and isinstance(outcome, Pause):
            outcome = Nack(outcome.reason)  # nobody would ever resume it
        match outcome:
            case Ack():
                failpoints.hit(failpoints.PUSHED)
                self.ledger.ack(leased, answer)
                if self.is_hook:
                    metrics.hook_taken.inc()
                await self.gate.succeeded()
            case Taken():
                await self._let_go(leased, place)
            case Nack():
                await self._nack(leased, answer, outcome, queue, place)
            case Discard():
                await self.gate.succeeded()
                await self.ledger.settle(leased, _settlement("discard", leased, answer, outcome.reason))
            case Throttle():
                asked = "" if answer.retry_after_ms is None else " with Retry-After"
                await self.gate.throttled(outcome.delay_ms, f"the endpoint answered {answer.status}{asked}")
                await self._return(leased, queue, place)
            case Pause():
                await pause_group(self.db, self.group, outcome.reason)
                await self._return(leased, queue, place)

    async def _nack(
        self, leased: Leased, answer: Answer, nack: Nack, queue: deque[Leased], place: Place | None
    ) -> None:
        is_probe = self.gate.is_probe(leased.id)
        if answer.healthy is False:
            await self.gate.failed(leased.id, nack.reason)
        else:
            await self.gate.succeeded()
        if is_probe and answer.error_class in UNREACHABLE:
            # Each probe of a long outage would use up an attempt of whatever message comes first.
            await self._return(leased, queue, place)
            return
        settlement = _settlement("nack", leased, answer, nack.reason, nack.delay_ms)
        still = await self.ledger.settle(leased, settlement)
        self._doubt(place)
        if still and self.is_hook and leased.attempt >= self.group.config.max_attempts:
            metrics.hook_given_up.inc()
            log.warning("hook_given_up", hook=self.group.topic, webhook_id=leased.id, error=nack.reason)

    async def _let_go(self, leased: Leased, place: Place | None) -> None:
        """The receiver has it, and settles it by its ackId within ackTimeoutMs."""
        await self.gate.succeeded()
        timeout_ms = self.group.config.ack_timeout_ms
        still = await self.ledger.settle(leased, Settlement("extend", leased.ack_id, timeout_ms=timeout_ms))
        if still and place is not None:
            self._taken[place] = leased

    async def _until_settled(self, taken: Leased) -> None:
        while not self.is_stopping:
            try:
                if not await attempts.is_pending(self.db, self.group.id, taken.ack_id):
                    return
            except Unavailable:
                pass
            await asyncio.sleep(ASK_S)

    async def _make_way(self, lost: Leased, place: Place) -> None:
        """Its next attempt comes before what is behind it, also before what is under a lease that lives: that is taken
        back when the database notices that this one failed, which it does now."""
        await self._until_settled(lost)
        while not self.is_stopping:
            try:
                failed, dead = await rescue.expire(self.db, lost.ack_id.partition_id, self.group.id)
            except Unavailable:
                await asyncio.sleep(ASK_S)
            else:
                tally.repaired(failed, int(failed > 0), dead)
                break
        self._doubt(place)

    async def _return(self, leased: Leased, queue: deque[Leased], place: Place | None) -> None:
        """Unsent or unjudged, with what waits behind it."""
        await self.gate.abandoned(leased.id)
        returned = [leased, *queue]
        queue.clear()
        await self.hand_back(returned, place)

    def _doubt(self, place: Place | None) -> None:
        """Something of the key may have been taken back."""
        if place is None:
            return
        self.unsure.add(place)
        for leased in self._queues.get(place, ()):
            leased.sure_at = NEVER


class _Detail(msgspec.Struct, rename="camel"):
    """What only a push knows of an attempt (functions/record_attempts.sql)."""

    latency_ms: int
    status: int | None
    error_class: str | None
    excerpt: str | None


def _settlement(verb: str, leased: Leased, answer: Answer, reason: str, delay_ms: int | None = None) -> Settlement:
    detail = _Detail(answer.latency_ms, answer.status, answer.error_class, answer.excerpt)
    return Settlement(
        "discard" if verb == "discard" else "nack", leased.ack_id, reason, delay_ms,
        detail=msgspec.json.encode(detail).decode(),
    )  # fmt: skip
