"""The nemesis: windows of faults drawn from a seed. A quarter is quiet; each ends with a heal and a recovery."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import asyncpg
import psutil

from bench.faults.client import Pulse
from bench.faults.cluster import AWAY, Cluster, Replica
from bench.faults.history import Event, Recorder, now
from bench.faults.plan import LEASE_MS, TOPIC, Phase
from bench.faults.points import Points

RECOVERY_TIMEOUT_S = 60.0
QUIET = 0.25
# The second kills no replica.
FAILPOINT, SPARING_FAILPOINT = "failpoint", "sparing failpoint"
# How long a window is followed by nothing, and how many of the windows have a failpoint. A long run has the time to
# let everybody catch up, and to come by every failpoint often.
REST_S, LONG_REST_S = (0.5, 1.6), (2.0, 4.0)
FAILPOINTS, LONG_FAILPOINTS = 0.5, 0.95
LONG_S = 900.0
# What takes longer than this goes on beside the next window; no more than so many do.
WINDOW_S = 2.0
MOST_PENDING = 3

Fault = Callable[["Nemesis", float], Awaitable[None]]


class Nemesis:
    """``faults``: which of them; all if empty. ``others``: faults of the run's own, beside those every run has."""

    def __init__(
        self,
        cluster: Cluster,
        recorder: Recorder,
        pulse: Pulse,
        phase: Phase,
        seed: int,
        faults: Sequence[str] = (),
        others: Mapping[str, Fault] | None = None,
        points: Points | None = None,
    ) -> None:
        self.cluster = cluster
        self.recorder = recorder
        self.pulse = pulse
        self.phase = phase
        self.random = random.Random(seed)
        self._spare = random.Random(seed + 1)
        self.faults = sorted(faults or FAULTS)
        self.points = points
        self._acts = FAULTS | dict(others or {})
        self.current = "nothing"
        self.fired = 0
        self.windows = 0
        self._turn = asyncio.Lock()  # of those who end replicas and start them again
        self._firing: ContextVar[Event] = ContextVar("firing")
        self._struck: dict[int, bool] = {}
        self._measuring: set[asyncio.Task[None]] = set()
        self._acting: set[asyncio.Task[None]] = set()
        self._defects: list[BaseException] = []

    @property
    def is_long(self) -> bool:
        return self.phase.seconds >= LONG_S

    async def run(self, until: Callable[[], bool]) -> None:
        """Window after window, until told to end; then everything is whole again."""
        while not until():
            self.windows += 1
            await self._window()
            if self._defects:
                raise self._defects[0]
        await self.recovered()
        self.current = "nothing"

    async def recovered(self) -> None:
        """When everything is whole again."""
        await asyncio.gather(*self._acting)
        if self.points is not None:
            await self.points.finished()
        await asyncio.gather(*self._measuring)

    async def _window(self) -> None:
        if self.random.random() < QUIET:
            self.current = "quiet"
            await self.phase.sleep(self.random.uniform(0.5, 1.5))
            return
        event = Event(f="window", topic=TOPIC, t0=now())
        count = min(self.random.choices((1, 2, 3), (8, 3, 1))[0], len(self.faults))
        names = self.random.sample(self.faults, count)
        if self._turn.locked():
            # A replica is away or comes back: what else there is to break is not that.
            lasting = [name for name in self.faults if name not in ENDING]
            names = [self._spare.choice(lasting) if name in ENDING and lasting else name for name in names]
        share = LONG_FAILPOINTS if self.is_long else FAILPOINTS
        if self.points is not None and self.random.random() < share:
            names.append(SPARING_FAILPOINT if self._turn.locked() else FAILPOINT)
        self.current = " + ".join(names)
        for name in names:
            task = asyncio.create_task(self._one(name))
            self._acting.add(task)
            task.add_done_callback(self._ended)
        await asyncio.wait(self._acting, timeout=WINDOW_S)
        while len(self._acting) > MOST_PENDING:
            await asyncio.wait(self._acting, return_when=asyncio.FIRST_COMPLETED)
        for proxy in self.cluster.proxies:
            proxy.heal()
        event.val = self.current
        self.recorder.complete([event], "ok")
        await self.phase.sleep(self.random.uniform(*(LONG_REST_S if self.is_long else REST_S)))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._acting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._defects.append(error)

    async def _one(self, name: str) -> None:
        await asyncio.sleep(self.random.uniform(0, 0.5))
        async with self._turn if name in ENDING else contextlib.nullcontext():
            await self.fire(name)

    async def fire(self, name: str) -> None:
        event = Event(f="fault", topic=TOPIC, val=name, t0=now(), data={"kill": name.startswith("kill")})
        if name == "hang any":
            event.data = {"hung": "any"}
        self.recorder.invoke([event])
        self._firing.set(event)
        try:
            if name in (FAILPOINT, SPARING_FAILPOINT):
                await self._hit(event, may_kill=name == FAILPOINT)
            else:
                await self._acts[name](self, self.random.uniform(0.5, 2.0))
        except (*AWAY, ValueError, psutil.Error):
            # Two faults met: what one wanted to break, the other had broken.
            self.recorder.complete([event], "fail")
            if name in ENDING:
                await self.cluster.revive()
            return
        finally:
            measured = self._struck.pop(event.op, False)
        self.fired += 1
        self.recorder.complete([event], "ok")
        if not measured:
            self._measure_from(event.val or name, event.t1)

    def struck(self, moment: int | None = None) -> None:
        """Called by a fault that does not last, when it has struck: recovery begins then, and not when all is whole."""
        event = self._firing.get()
        self._struck[event.op] = True
        self._measure_from(event.val or "?", moment or now())

    def _measure_from(self, name: str, moment: int) -> None:
        for what in ("published", "delivered"):
            task = asyncio.create_task(self._measure(name, what, moment))
            self._measuring.add(task)
            task.add_done_callback(self._measuring.discard)

    async def _hit(self, event: Event, *, may_kill: bool) -> None:
        assert self.points is not None
        point = self.points.next()
        event.val = f"at {point}"
        event.t0, died = await self.points.hit(point, may_kill=may_kill)
        event.data, event.t1 = {"kill": died}, now()
        self.struck(event.t0)
        if died:
            await asyncio.sleep(0.3)
            for replica in self.cluster.replicas:
                await replica.ready()

    async def _measure(self, name: str, what: str, moment: int) -> None:
        """Until somebody got a publish, or a delivery, through that was begun after the fault."""
        ended = await self.pulse.after(what, moment, RECOVERY_TIMEOUT_S)
        if ended is not None:
            self.recorder.note(Event(f="recovery", val=f"{name}, {what}", t0=moment, t1=ended))

    def replica(self) -> Replica:
        return self.random.choice(self.cluster.replicas)


async def kill_replica(nemesis: Nemesis, seconds: float) -> None:
    replica = nemesis.replica()
    await replica.kill()
    nemesis.struck()
    await asyncio.sleep(seconds / 2)
    replica.start()
    await replica.ready()


async def kill_worker(nemesis: Nemesis, _: float) -> None:
    """Its supervisor starts another."""
    replica = nemesis.replica()
    replica.signal(signal.SIGKILL, replica.workers())
    nemesis.struck()
    await asyncio.sleep(0.3)
    await replica.ready()


async def kill_all_replicas(nemesis: Nemesis, seconds: float) -> None:
    replicas = nemesis.cluster.replicas
    for replica in replicas:
        replica.signal(signal.SIGKILL)
    for replica in replicas:
        await replica.gone()
    nemesis.struck()
    await asyncio.sleep(seconds / 4)
    for replica in replicas:
        replica.start()
    for replica in replicas:
        await replica.ready()


async def stop_replica(nemesis: Nemesis, seconds: float) -> None:
    """A zombie: stopped beyond the lease of whatever it was about to settle, then it goes on as if nothing was."""
    replica = nemesis.replica()
    replica.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds + nemesis.random.choice((0.0, LEASE_MS / 1000)))
    finally:
        replica.signal(signal.SIGCONT)


async def restart_replica(nemesis: Nemesis, _: float) -> None:
    """SIGTERM under load: a rolling restart's step."""
    replica = nemesis.replica()
    await replica.stop()
    replica.start()
    await replica.ready()


async def kill_backend(nemesis: Nemesis, _: float) -> None:
    """Postgres then throws out everybody and recovers."""
    backends = nemesis.cluster.backends()
    if not backends:
        raise ValueError("no backend")
    nemesis.random.choice(backends).kill()
    nemesis.struck()
    await _postgres_answers(nemesis)


async def kill_postmaster(nemesis: Nemesis, _: float) -> None:
    tree = nemesis.cluster.postgres_tree()
    if not tree:
        raise ValueError("no postmaster")
    tree[0].kill()
    nemesis.struck()
    await asyncio.sleep(0.1)
    await _postgres_answers(nemesis)


async def kill_postgres(nemesis: Nemesis, _: float) -> None:
    """The whole tree at once."""
    tree = nemesis.cluster.postgres_tree()
    if not tree:
        raise ValueError("no Postgres")
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    nemesis.struck()
    await asyncio.sleep(0.1)
    await _postgres_answers(nemesis)


async def _postgres_answers(nemesis: Nemesis) -> None:
    for _ in range(600):
        with contextlib.suppress(*AWAY):
            await nemesis.cluster.execute("select 1")
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("Postgres did not come back")


async def terminate_listen(nemesis: Nemesis, _: float) -> None:
    await nemesis.cluster.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%' and pid <> pg_backend_pid()"
    )
    nemesis.struck()


async def terminate_connections(nemesis: Nemesis, _: float) -> None:
    await nemesis.cluster.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where backend_type = 'client backend' and pid <> pg_backend_pid() and random() < 0.5"
    )
    nemesis.struck()


async def lock_cursors(nemesis: Nemesis, seconds: float) -> None:
    """Somebody's forgotten transaction."""
    connection = await asyncpg.connect(nemesis.cluster.postgres.dsn, timeout=5)
    try:
        transaction = connection.transaction()
        await transaction.start()
        table = nemesis.random.choice(("cursors", "batches", "leases"))
        await connection.execute(f"lock table {table} in exclusive mode", timeout=10)
        await asyncio.sleep(seconds)
        await transaction.rollback()
    finally:
        connection.terminate()


def proxied(act: Callable[[Nemesis, Any], None]) -> Fault:
    """A fault of one replica's way to Postgres, which lasts for the window."""

    async def fault(nemesis: Nemesis, seconds: float) -> None:
        proxy = nemesis.random.choice(nemesis.cluster.proxies)
        act(nemesis, proxy)
        await asyncio.sleep(seconds)
        proxy.heal()

    return fault


def _slow(nemesis: Nemesis, proxy: Any) -> None:
    proxy.weather.latency_ms = nemesis.random.choice((20, 100, 300))
    proxy.weather.jitter_ms = 50


def _reset(nemesis: Nemesis, proxy: Any) -> None:
    proxy.reset()
    nemesis.struck()


async def hang_any(nemesis: Nemesis, seconds: float) -> None:
    nemesis.phase.hung = "any"
    try:
        await asyncio.sleep(2 + seconds * 2)
    finally:
        nemesis.phase.hung = None


FAULTS: dict[str, Fault] = {
    "kill replica": kill_replica,
    "kill worker": kill_worker,
    "kill all replicas": kill_all_replicas,
    "stop replica": stop_replica,
    "restart replica": restart_replica,
    "kill backend": kill_backend,
    "kill postmaster": kill_postmaster,
    "kill postgres": kill_postgres,
    "terminate listen": terminate_listen,
    "terminate connections": terminate_connections,
    "lock a table": lock_cursors,
    "slow database": proxied(_slow),
    "stalled database": proxied(lambda _, proxy: proxy.stall()),
    "reset database": proxied(_reset),
    "cut up": proxied(lambda nemesis, proxy: proxy.cut_after(nemesis.random.randrange(20_000), "up")),
    "cut down": proxied(lambda nemesis, proxy: proxy.cut_after(nemesis.random.randrange(20_000), "down")),
    "lose up": proxied(lambda _, proxy: proxy.drop("up")),
    "lose down": proxied(lambda _, proxy: proxy.drop("down")),
    "half close": proxied(lambda _, proxy: proxy.half_close("down")),
    "hang any": hang_any,
}
ENDING = frozenset({"kill replica", "kill worker", "kill all replicas", "restart replica", FAILPOINT})
