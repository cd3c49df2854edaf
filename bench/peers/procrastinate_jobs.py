"""procrastinate: a job queue on Postgres, used as its documentation does.

It has no fan-out: several groups are a job for each, which is not measured. Its worker takes jobs one at a
time and finishes each by itself, so there is no ack of a batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from bench.peers.peer import WAIT_S, Peer, Publish, Taken
from bench.peers.postgres import OnPostgres

CONCURRENCY = 4  # of each session's worker
POLL_S = 0.05  # between looks; the worker is notified of new jobs besides


class Procrastinate(OnPostgres):
    title = "procrastinate"
    lacks = frozenset({"consume-batch", "fan-out-5", "fan-out-20"})

    def missing(self) -> str:
        found = importlib.util.find_spec("procrastinate") and importlib.util.find_spec("psycopg")
        return "" if found else "procrastinate is not installed"

    @property
    def version(self) -> str:
        return f"procrastinate {version('procrastinate')}"

    async def install(self) -> None:
        app = app_on(self.place)
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    async def fan_out(self, topic: str, groups: int) -> None:
        """Nothing to declare: a queue is a value in a column."""


PEERS: Mapping[str, Callable[[], Peer]] = {"procrastinate": Procrastinate}


def app_on(place: str) -> Any:
    import procrastinate  # noqa: PLC0415

    return procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=place, min_size=1, max_size=4))


class JobSession:
    def __init__(self, app: Any, topic: str, groups: int) -> None:
        self._app = app
        self._topic = topic
        self._queues = [f"{topic}.g{n}" for n in range(groups)]
        self._done: asyncio.Queue[str] = asyncio.Queue()
        self._working: asyncio.Task[None] | None = None
        self._task = app.task(name="take")(self._work)

    async def _work(self, body: str) -> None:
        self._done.put_nowait(body)

    def one(self, body: bytes) -> Publish:
        if len(self._queues) > 1:
            return self.batch([body])
        deferrer, text = self._task.configure(queue=self._queues[0]), body.decode()

        async def publish() -> None:
            await deferrer.defer_async(body=text)

        return publish

    def batch(self, bodies: Sequence[bytes]) -> Publish:
        jobs = [{"body": body.decode()} for body in bodies]
        deferrers = [self._task.configure(queue=queue) for queue in self._queues]

        async def publish() -> None:
            for deferrer in deferrers:
                await deferrer.batch_defer_async(*jobs)

        return publish

    async def take(self, group: str, wanted: int, *, each: bool) -> Taken:
        if self._working is None:
            self._working = asyncio.create_task(
                self._app.run_worker_async(
                    queues=[f"{self._topic}.{group}"], concurrency=CONCURRENCY, delete_jobs="successful",
                    install_signal_handlers=False, fetch_job_polling_interval=POLL_S,
                )
            )  # fmt: skip
        bodies = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                bodies.append(await self._done.get())
        while bodies and len(bodies) < wanted and not self._done.empty():
            bodies.append(self._done.get_nowait())
        return Taken(len(bodies), "".join(bodies).encode())

    async def close(self) -> None:
        if self._working is not None:
            self._working.cancel()  # it finishes what it has begun
            with contextlib.suppress(asyncio.CancelledError):
                await self._working
        await self._app.close_async()


async def connect(place: str, topic: str, groups: int) -> JobSession:
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    app = app_on(place)
    await app.open_async()
    return JobSession(app, topic, groups)
