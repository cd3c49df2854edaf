"""Real webhook payloads, published over HTTP and pulled by two groups: byte for byte, in order per key, none left."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.servers import ROOT, Servers

EVENTS = ROOT.parent / "shared" / "data" / "github-webhooks.ndjson"
ORDERINGS = ("partition", "key")

pytestmark = pytest.mark.skipif(not EVENTS.exists(), reason=f"{EVENTS.name} is not beside this checkout")


@dataclass(frozen=True)
class Event:
    """A line of the file; ``payload`` is cut out of it, not decoded."""

    event: str
    key: str | None
    payload: bytes


class Delivered(msgspec.Struct, rename="camel"):
    id: str
    key: str | None
    headers: dict[str, str]
    ack_id: str
    message: msgspec.Raw


class Pulled(msgspec.Struct):
    messages: list[Delivered]


def event_of(line: bytes) -> Event:
    head, _, tail = line.rstrip().partition(b',"payload":')
    payload = tail.removesuffix(b"}")
    fields = json.loads(head + b"}")
    assert json.loads(line) == {**fields, "payload": json.loads(payload)}
    return Event(fields["event"], fields["key"], payload)


def read_events(path: Path) -> list[Event]:
    with path.open("rb") as lines:
        return [event_of(line) for line in lines]


async def publish(http: httpx.AsyncClient, event: Event) -> str:
    headers = {"Content-Type": "application/json", "Message-Header-event": event.event}
    if event.key is not None:
        headers["Partition-Key"] = event.key
    answer = await http.post("/topics/github/messages", content=event.payload, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def drain(http: httpx.AsyncClient, group: str) -> list[Delivered]:
    """Pulls and acks until there is nothing left."""
    path = f"/topics/github/groups/{group}"
    found: list[Delivered] = []
    while True:
        pulled = await http.post(f"{path}/pull", json={"max": 40})
        assert pulled.status_code == 200, pulled.text
        messages = msgspec.json.decode(pulled.content, type=Pulled).messages
        if not messages:
            return found
        found += messages
        ack = await http.post(f"{path}/ack", json={"ackIds": [message.ack_id for message in messages]})
        assert [result["status"] for result in ack.json()["results"]] == ["ok"] * len(messages)


def by_key(pairs: list[tuple[str | None, Any]]) -> dict[str, list[Any]]:
    found = defaultdict(list)
    for key, value in pairs:
        if key is not None:
            found[key].append(value)
    return found


async def test_webhooks_reach_two_groups_byte_for_byte_and_in_order_per_key(servers: Servers, dsn: str) -> None:
    events = read_events(EVENTS)
    server = await servers.start(dsn=dsn)
    async with httpx.AsyncClient(base_url=f"{server.url}/v1", timeout=90) as http:
        assert (await http.put("/topics/github", json={"distribution": {"partitions": 4}})).status_code == 201
        for ordering in ORDERINGS:
            body = {"startFrom": "earliest", "ordering": ordering}
            assert (await http.put(f"/topics/github/groups/by-{ordering}", json=body)).status_code == 201
        published = {await publish(http, event): event for event in events}
        assert len(published) == len(events)

        for ordering in ORDERINGS:
            delivered = await drain(http, f"by-{ordering}")
            assert len(delivered) == len(events)
            for message in delivered:
                event = published[message.id]
                assert (message.key, message.headers, bytes(message.message)) == (
                    event.key, {"event": event.event}, event.payload,
                )  # fmt: skip
            assert {message.id for message in delivered} == set(published)
            assert by_key([(message.key, message.id) for message in delivered]) == by_key(
                [(event.key, message_id) for message_id, event in published.items()]
            )
            lag = (await http.get(f"/topics/github/groups/by-{ordering}/lag")).json()
            assert lag["lag"] == 0
