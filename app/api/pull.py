"""Pull on the fast lane: a body of a few numbers in, messages spliced as they are stored out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from app.api.auth import Caller
from app.api.body import decoded
from app.api.form import delivered
from app.api.lane import Answer, ClientGone, Headers, Receive, read_body
from app.api.polls import Polls
from app.broker.catalog import GroupKey
from app.broker.demand import DEFAULT_BYTES, Demand, Pulled
from app.broker.line import Patience
from app.broker.pull import Puller
from app.broker.settle import Settler
from app.domain.errors import LogpostError, Unauthorized

MAX_WAIT_MS = 60_000
# What a consumer may call itself. Labels are stored as text, which has no NUL.
Label = Annotated[str, Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class PullRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """``max`` messages (the group's batchSize if left out) and ``max_bytes`` of payload, waiting up to ``wait_ms``."""

    max: Annotated[int, Meta(ge=1, le=1000)] | None = None
    max_bytes: Annotated[int, Meta(ge=1, le=1 << 30)] = DEFAULT_BYTES
    wait_ms: Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)] = 0
    consumer: Label | None = None


_decoder = msgspec.json.Decoder(PullRequest)


MAX_BODY = 64 * 1024


class PullCalls:
    """``pull`` is a call of the lane."""

    def __init__(self, puller: Puller, settler: Settler, polls: Polls) -> None:
        self._puller = puller
        self._settler = settler
        self._polls = polls

    async def pull(self, caller: Caller, names: Sequence[str], headers: Headers, receive: Receive) -> Answer:
        """Raises InvalidJson, InvalidField, TopicNotFound, GroupNotFound, Unavailable; ClientGone, and Unauthorized for
        a key that ended meanwhile, and then what was claimed has been handed back."""
        request = decoded(await read_body(dict(headers), receive, MAX_BODY), _decoder)
        demand = Demand(
            owner_of(request.consumer or ""), request.max, request.max_bytes, is_shared=bool(request.consumer)
        )
        patience = Patience(request.wait_ms)
        with self._polls.waiting(caller.prefix, patience) as poll:
            pulled = await self._pull((caller.namespace.id, names[0], names[1]), demand, patience, receive)
        if isinstance(pulled, LogpostError):
            raise pulled
        if poll.is_cut:
            await self._hand_back(pulled)
            raise Unauthorized("The key of this request was revoked or has expired while it waited.")
        return 200, answer(pulled)

    async def _pull(self, key: GroupKey, demand: Demand, patience: Patience, receive: Receive) -> Pulled | LogpostError:
        """Pulls as long as the client is there. An error is returned, because a task group would wrap it."""
        is_gone = False

        async def watch() -> None:
            nonlocal is_gone
            while (await receive())["type"] != "http.disconnect":
                pass
            is_gone = True
            patience.end()

        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(watch())
            try:
                pulled: Pulled | LogpostError = await self._puller.pull(key, demand, patience)
            except LogpostError as error:
                pulled = error
            finally:
                watcher.cancel()
        if not is_gone:
            return pulled
        if isinstance(pulled, Pulled):
            await self._hand_back(pulled)
        raise ClientGone

    async def _hand_back(self, pulled: Pulled) -> None:
        if pulled.taken:
            await self._settler.hand_back(pulled.group.id, pulled.ack_ids())


def owner_of(label: str) -> str:
    """The owner of a lease: all pulls with the same label are one consumer, one without is like no other."""
    return f"consumer:{label}" if label else f"pull:{secrets.token_hex(8)}"


def answer(pulled: Pulled) -> bytes:
    empty = b"null" if pulled.empty is None else b'"%b"' % pulled.empty.encode()
    limit = b"" if pulled.limit is None else b',"limit":%b' % msgspec.json.encode(pulled.limit)
    return b'{"messages":[%b],"empty":%b%b}' % (b",".join(delivered(pulled)), empty, limit)
