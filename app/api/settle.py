"""Ack, nack, discard, extend and the four mixed, on the fast lane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from app.api.auth import Caller
from app.api.body import decoded
from app.api.lane import Answer, Headers, Receive, read_body
from app.broker.catalog import Catalog
from app.broker.settle import Settlement, Settler, is_of
from app.domain.errors import Fault, InvalidField, NothingSettled
from app.domain.group import Group
from app.domain.lease import Verb, parse_ack_id

MAX_ACK_IDS = 10_000
MAX_DELAY_MS = 7 * 24 * 60 * 60 * 1000

DelayMs = Annotated[int, Meta(ge=0, le=MAX_DELAY_MS)] | None
TimeoutMs = Annotated[int, Meta(ge=100, le=86_400_000)] | None
Reason = Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00]*$")] | None
AckIds = Annotated[list[str], Meta(min_length=1, max_length=MAX_ACK_IDS)]


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One verb for several deliveries. ``delay_ms`` goes with nack, ``ack_timeout_ms`` with extend."""

    ack_ids: AckIds
    reason: Reason = None
    delay_ms: DelayMs = None
    ack_timeout_ms: TimeoutMs = None


class Nack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    ack_id: str
    reason: Reason = None
    delay_ms: DelayMs = None


class Discard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    ack_id: str
    reason: Reason = None


class Extend(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    ack_id: str
    ack_timeout_ms: TimeoutMs = None


class Mixed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Results come in this order: ack, nack, discard, extend."""

    ack: Annotated[list[str], Meta(max_length=MAX_ACK_IDS)] = []
    nack: Annotated[list[Nack], Meta(max_length=MAX_ACK_IDS)] = []
    discard: Annotated[list[Discard], Meta(max_length=MAX_ACK_IDS)] = []
    extend: Annotated[list[Extend], Meta(max_length=MAX_ACK_IDS)] = []


_form = msgspec.json.Decoder(Form)
_mixed = msgspec.json.Decoder(Mixed)


MAX_FAULTS = 100
# Between one ackId that is settled and the next.
ALL_OK = '","status":"ok"},{"ackId":"'
# Ten thousand ackIds of the longest kind, with reasons for many of them.
MAX_BODY = 4 * 1024 * 1024


class SettleCalls:
    """Calls of the lane: one for each verb, and ``settle`` for the four mixed."""

    def __init__(self, catalog: Catalog, settler: Settler) -> None:
        self._catalog = catalog
        self._settler = settler

    async def ack(self, caller: Caller, names: Sequence[str], headers: Headers, receive: Receive) -> Answer:
        group, form = await self._form(caller, names, headers, receive)
        return 200, answer(group, form.ack_ids, await self._settler.ack(group, form.ack_ids))

    async def nack(self, caller: Caller, names: Sequence[str], headers: Headers, receive: Receive) -> Answer:
        return await self._one_verb("nack", *await self._form(caller, names, headers, receive))

    async def discard(self, caller: Caller, names: Sequence[str], headers: Headers, receive: Receive) -> Answer:
        return await self._one_verb("discard", *await self._form(caller, names, headers, receive))

    async def extend(self, caller: Caller, names: Sequence[str], headers: Headers, receive: Receive) -> Answer:
        return await self._one_verb("extend", *await self._form(caller, names, headers, receive))

    async def settle(self, caller: Caller, names: Sequence[str], headers: Headers, receive: Receive) -> Answer:
        group = await self._catalog.group(caller.namespace.id, names[0], names[1])
        mixed = decoded(await read_body(dict(headers), receive, MAX_BODY), _mixed)
        asked = [*_asked(mixed, group)]
        if not asked:
            raise InvalidField.of("body", "names no ackId to settle")
        return await self._settle(group, asked)

    async def _form(
        self, caller: Caller, names: Sequence[str], headers: Headers, receive: Receive
    ) -> tuple[Group, Form]:
        group = await self._catalog.group(caller.namespace.id, names[0], names[1])
        return group, decoded(await read_body(dict(headers), receive, MAX_BODY), _form)

    async def _one_verb(self, verb: Verb, group: Group, form: Form) -> Answer:
        timeout_ms = form.ack_timeout_ms or group.config.ack_timeout_ms
        return await self._settle(
            group,
            [(text, _settlement(verb, text, form.reason, form.delay_ms, timeout_ms)) for text in form.ack_ids],
        )

    async def _settle(self, group: Group, asked: Sequence[tuple[str, Settlement | None]]) -> Answer:
        done = iter(await self._settler.settle(group, [settlement for _, settlement in asked if settlement]))
        results = [settlement is not None and next(done) for _, settlement in asked]
        return 200, answer(group, [text for text, _ in asked], results)


def _asked(mixed: Mixed, group: Group) -> Iterable[tuple[str, Settlement | None]]:
    """What is to be done with each ackId as it was given."""
    for text in mixed.ack:
        yield text, _settlement("ack", text)
    for nack in mixed.nack:
        yield nack.ack_id, _settlement("nack", nack.ack_id, nack.reason, nack.delay_ms)
    for discard in mixed.discard:
        yield discard.ack_id, _settlement("discard", discard.ack_id, discard.reason)
    for extend in mixed.extend:
        timeout_ms = extend.ack_timeout_ms or group.config.ack_timeout_ms
        yield extend.ack_id, _settlement("extend", extend.ack_id, timeout_ms=timeout_ms)


def _settlement(
    verb: Verb, text: str, reason: str | None = None, delay_ms: int | None = None, timeout_ms: int = 0
) -> Settlement | None:
    """None for what is no ackId: an ackId is opaque, so that one that was never given is one that is stale."""
    ack_id = parse_ack_id(text)
    return None if ack_id is None else Settlement(verb, ack_id, reason, delay_ms, timeout_ms)


def answer(group: Group, ack_ids: Sequence[str], results: Sequence[bool]) -> bytes:
    """Raises NothingSettled if none is ok, saying of which ackIds that was clear from the start; nothing has changed
    then."""
    if True not in results:
        raise NothingSettled(
            "None of these deliveries is in flight under its ackId any more.",
            [Fault("is no ackId of this group", f"ackIds[{at}]", at) for at in _strange(group, ack_ids)][:MAX_FAULTS],
            extra={"results": [{"ackId": ack_id, "status": "stale"} for ack_id in ack_ids]},
        )
    # What was settled as an ackId has nothing in it that JSON would have to escape.
    if False not in results:
        return f'{{"results":[{{"ackId":"{ALL_OK.join(ack_ids)}","status":"ok"}}]}}'.encode()
    parts = [
        f'{{"ackId":{msgspec.json.encode(ack_id).decode()},"status":"{"ok" if ok else "stale"}"}}'
        for ack_id, ok in zip(ack_ids, results, strict=True)
    ]
    return f'{{"results":[{",".join(parts)}]}}'.encode()


def _strange(group: Group, ack_ids: Sequence[str]) -> Iterable[int]:
    """Positions of those that this group never gave out."""
    for at, text in enumerate(ack_ids):
        ack_id = parse_ack_id(text)
        if ack_id is None or not is_of(group, ack_id):
            yield at
