"""Owns every task of the process: nothing else in the application starts one that outlives its caller.

What is started here runs until it returns by itself. One that raises is a defect: it is logged with its traceback,
counted, and started again after a pause, because a process without its appender or its listener looks alive and is
not. Stopping drains: first everything that was started on top, all at once; then the foundations it stands on, the
last started first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from app import metrics
from app.loops.loop import Loop, backoff_s, wait_for
from app.telemetry import log

# Once the time to drain is over, a foundation still gets this much to put away what it holds.
FOUNDATION_GRACE_S = 1.0
# How long a cancelled task may take to end before it is left behind.
CANCEL_GRACE_S = 5.0
# A task that ran this long before it crashed starts counting its crashes anew.
STEADY_S = 60.0

Run = Callable[[], Awaitable[object]]


@dataclass(eq=False, slots=True)
class Supervised:
    """One owned task. ``ask_to_stop`` makes ``run`` return soon; without one it is cancelled when its turn comes."""

    name: str
    run: Run
    ask_to_stop: Callable[[], None] | None
    foundation: bool
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] = field(init=False)

    @property
    def done(self) -> bool:
        return self.task.done()

    def start(self) -> None:
        self.task = asyncio.create_task(self._keep_running(), name=self.name)

    def stop(self) -> None:
        """Asks it to end; a task that cannot be asked is cancelled."""
        self.stopping.set()
        if self.ask_to_stop is None:
            self.task.cancel()
            return
        try:
            self.ask_to_stop()
        except Exception:
            log.exception("task_not_stopped", task=self.name)
            self.task.cancel()

    async def _keep_running(self) -> None:
        clock = asyncio.get_running_loop().time
        crashes = 0
        while True:
            began = clock()
            try:
                await self.run()
                return
            except asyncio.CancelledError:
                if self.task.cancelling():
                    raise
                # Something it waited for was cancelled, not the task itself: that is a crash like any other.
                log.exception("task_crashed", task=self.name)
            except Exception:
                log.exception("task_crashed", task=self.name)
            metrics.task_crashed(self.name)
            crashes = 1 if clock() - began > STEADY_S else crashes + 1
            if await wait_for(self.stopping, backoff_s(crashes)):
                return


class Supervisor:
    """``async with Supervisor(drain_s=25) as supervisor: supervisor.start("rescue", loop.run, stop=loop.stop)``."""

    def __init__(self, *, drain_s: float = 25.0) -> None:
        self.drain_s = drain_s
        self._owned: dict[str, Supervised] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # After a failed start there is nothing worth draining.
        await self.stop(self.drain_s if error is None else 0)

    @property
    def is_stopping(self) -> bool:
        """Nothing can be started any more."""
        return self._closed

    @property
    def names(self) -> list[str]:
        """What runs, in the order it was started."""
        return list(self._owned)

    def start(
        self, name: str, run: Run, *, stop: Callable[[], None] | None = None, foundation: bool = False
    ) -> Supervised:
        """Runs ``run()`` in a task of its own.

        ``foundation``: others rely on it, so it is stopped after all that are not. Raises RuntimeError if ``name``
        runs already or the supervisor is stopping.
        """
        if self._closed:
            raise RuntimeError(f"{name} cannot start: the process is stopping")
        if name in self._owned:
            raise RuntimeError(f"{name} runs already")
        owned = Supervised(name, run, stop, foundation)
        self._owned[name] = owned
        owned.start()
        owned.task.add_done_callback(lambda _: self._owned.pop(name, None))
        return owned

    def start_loop(self, loop: Loop) -> Supervised:
        return self.start(loop.name, loop.run, stop=loop.stop)

    async def end(self, owned: Supervised, timeout_s: float) -> None:
        """Stops one task: waits so long for it to drain, then cancels it."""
        await self._end([owned], timeout_s)

    async def stop(self, timeout_s: float) -> None:
        """Stops everything; returns when nothing runs any more. Nothing can be started from now on."""
        self._closed = True
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        owned = list(self._owned.values())
        await self._end([one for one in owned if not one.foundation], timeout_s)
        for one in reversed([one for one in owned if one.foundation]):
            await self._end([one], max(deadline - clock(), FOUNDATION_GRACE_S))

    async def _end(self, owned: Sequence[Supervised], timeout_s: float) -> None:
        for one in owned:
            one.stop()
        tasks = {one.task for one in owned if not one.done}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            await self._cancel(late)

    async def _cancel(self, late: set[asyncio.Task[None]]) -> None:
        for task in late:
            log.warning("task_cut_off", task=task.get_name())
            task.cancel()
        if late:
            _, stuck = await asyncio.wait(late, timeout=CANCEL_GRACE_S)
            for task in stuck:
                log.error("task_left_behind", task=task.get_name())
