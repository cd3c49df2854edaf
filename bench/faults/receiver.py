"""The receiver of a push group, in the run's process. A 2xx is the ack; now and then it has other answers, or none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from urllib.parse import unquote

from aiohttp import web

from app.domain.lease import parse_ack_id
from bench.faults.client import Client, digest, value_of
from bench.faults.history import Event, now
from bench.faults.plan import LEASE_MS, PUSHED, TOPIC, Phase

PREFIX = b"message-header-"


class Receiver:
    """``url`` is known after ``start``."""

    def __init__(self, client: Client, phase: Phase) -> None:
        self.client = client
        self.phase = phase
        self.random = client.random
        self.url = ""
        self._runner: web.ServerRunner | None = None

    async def start(self) -> Receiver:
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/"
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        deliver = _delivered(request, body)
        self.client.recorder.note(deliver)
        self.client.pulse.beat("pushed", deliver.t1)
        what = self._intent(deliver.off or 0)
        if what == "hang":
            await self.phase.sleep(LEASE_MS / 1000 * 1.5)
        elif self.random.random() < 0.3:
            await asyncio.sleep(self.random.uniform(0, 0.05))
        is_refused = what == "refuse"
        settle = Event(
            f="nack" if is_refused else "ack", topic=TOPIC, group=PUSHED, part=deliver.part, cons=deliver.cons,
            tok=deliver.tok, t0=now(),
        )  # fmt: skip
        self.client.recorder.invoke([settle])
        response = web.StreamResponse(status=500 if is_refused else 200, headers={"content-length": "100"})
        is_whole = False
        with contextlib.suppress(OSError):
            await response.prepare(request)
            if what == "cut":
                await response.write(b" " * 10)
                if request.transport is not None:
                    request.transport.abort()
            else:
                await response.write(b" " * 100)
                await response.write_eof()
                is_whole = what != "hang"  # by then the server has given up
        self.client.recorder.complete([settle], "ok" if is_whole else "info", status=response.status)
        return response

    def _intent(self, offset: int) -> str:
        if self.phase.draining:
            return "take"
        if self.phase.is_poison(offset):
            return "refuse"  # poison
        chance = self.random.random()
        for intent, share in (("refuse", 0.02), ("cut", 0.005), ("hang", 0.003)):
            if chance < share:
                return intent
            chance -= share
        return "take"


def _delivered(request: web.BaseRequest, body: bytes) -> Event:
    headers = request.headers
    ack_id = headers["Logpost-Ack-Id"]
    parsed = parse_ack_id(ack_id)
    key = headers.get("Logpost-Key")
    moment = now()
    return Event(
        f="deliver", topic=TOPIC, group=PUSHED, part=int(headers["Logpost-Partition"]),
        off=int(headers["Logpost-Offset"]), key=None if key is None else unquote(key), val=value_of(body),
        sha=digest(body, _own(request.raw_headers), headers.get("Correlation-Id")), tok=ack_id,
        att=int(headers["Logpost-Attempt"]), epoch=parsed.epoch if parsed else 0,
        cons=f"lease {parsed.lease_id:x}" if parsed else "", t0=moment, t1=moment,
    )  # fmt: skip


def _own(raw_headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The message's own headers."""
    return {
        name[len(PREFIX) :].decode().lower(): value.decode()
        for name, value in raw_headers
        if name.lower().startswith(PREFIX)
    }
