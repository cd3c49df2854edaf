"""Fleet: the dispatchers of a process, one for each push group there is."""

from __future__ import annotations

from functools import partial

from app.loops.loop import Loop
from app.loops.push.dispatcher import Dispatcher, Pushing
from app.loops.supervisor import Supervised, Supervisor
from app.storage import endpoints
from app.storage.endpoints import Pushed

# How soon a group that was declared elsewhere is pushed here.
INTERVAL_MS = 1000


class Fleet:
    """``loop`` keeps it as the database says; a dispatcher that ends by itself is started again if it still should."""

    def __init__(self, supervisor: Supervisor, shared: Pushing) -> None:
        self.loop = Loop("fleet", self.muster_once, interval_ms=INTERVAL_MS)
        self._supervisor = supervisor
        self._shared = shared
        self._running: dict[Pushed, Supervised] = {}

    async def muster_once(self) -> bool:
        wanted = set(await endpoints.pushed(self._shared.db))
        self._running = {pushed: owned for pushed, owned in self._running.items() if not owned.done}
        for pushed in self._running.keys() - wanted:
            self._running[pushed].stop()  # it puts away what it has, and is done some time later
        if self._supervisor.is_stopping:
            return False
        for pushed in wanted - self._running.keys():
            dispatcher = Dispatcher(pushed, self._shared)
            start = partial(self._supervisor.start, f"push:{pushed.group_id}")
            self._running[pushed] = start(dispatcher.run, stop=dispatcher.stop)
        return False
