"""kill -9 of everything, server and Postgres, while publishers are at work: what was acknowledged is there, once."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.servers import Server, Servers, wait_until

PUBLISHERS = 8
MESSAGES = 250  # of each publisher
KILLS = 2


@dataclass
class Publishers:
    """``acknowledged``: the answer to each message, by its idempotency key. ``uncertain``: answers that never came."""

    url: str
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    uncertain: set[str] = field(default_factory=set)
    back: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish_all(self, publisher: int) -> None:
        async with httpx.AsyncClient(timeout=90) as http:
            for number in range(MESSAGES):
                await self.publish(http, f"{publisher}-{number}", f"key-{publisher}")

    async def publish(self, http: httpx.AsyncClient, name: str, key: str) -> None:
        """Until it is acknowledged, always with the same idempotency key."""
        headers = {"Content-Type": "application/json", "Partition-Key": key, "Idempotency-Key": name}
        while True:
            # Read before the request: a server that comes back during it must not be missed.
            await self.back.wait()
            try:
                answer = await http.post(
                    f"{self.url}/v1/topics/orders/messages", content=f'{{"name":"{name}"}}', headers=headers
                )
            except httpx.TransportError:
                self.uncertain.add(name)
                # The server that broke off is dead; the event loop has to turn for the test to notice.
                await asyncio.sleep(0.01)
                continue
            if answer.status_code == 503:
                self.uncertain.add(name)
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code in (200, 201), answer.text
            self.acknowledged[name] = answer.json()
            return


async def declare(server: Server) -> None:
    async with httpx.AsyncClient(base_url=f"{server.url}/v1", timeout=90) as http:
        answer = await http.put("/topics/orders", json={"distribution": {"partitions": 4}})
        assert answer.status_code == 201, answer.text
        answer = await http.put("/topics/orders/groups/all", json={"startFrom": "earliest"})
        assert answer.status_code == 201, answer.text


async def drain(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        messages = (await http.post("/groups/all/pull", json={"max": 1000})).json()["messages"]
        if not messages:
            return found
        found += messages
        ack = await http.post("/groups/all/ack", json={"ackIds": [message["ackId"] for message in messages]})
        assert ack.status_code == 200, ack.text


async def publish_through_kills(servers: Servers) -> tuple[Server, Publishers]:
    server = await servers.start()
    await declare(server)
    publishers = Publishers(server.url)
    publishers.back.set()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(publishers.publish_all(number)) for number in range(PUBLISHERS)]
        for kill in range(1, KILLS + 1):
            enough = PUBLISHERS * MESSAGES * kill // (KILLS + 1)
            await wait_until(lambda enough=enough: len(publishers.acknowledged) >= enough)  # type: ignore[misc]
            assert not any(task.done() for task in tasks)
            publishers.back.clear()
            server.kill_tree()
            server = await servers.start()
            publishers.url = server.url
            publishers.back.set()
    return server, publishers


async def test_nothing_acknowledged_is_lost_or_doubled_by_killing_everything(servers: Servers) -> None:
    server, publishers = await publish_through_kills(servers)
    expected = {f"{publisher}-{number}" for publisher in range(PUBLISHERS) for number in range(MESSAGES)}
    assert set(publishers.acknowledged) == expected
    assert publishers.uncertain, "no kill met a publish under way"

    async with httpx.AsyncClient(base_url=f"{server.url}/v1/topics/orders", timeout=90) as http:
        stored = await drain(http)
        lag = (await http.get("/groups/all/lag")).json()["lag"]
        repeated = await http.post(
            "/messages", content='{"name":"0-0"}',
            headers={"Content-Type": "application/json", "Partition-Key": "key-0", "Idempotency-Key": "0-0"},
        )  # fmt: skip

    assert lag == 0
    assert Counter(message["message"]["name"] for message in stored) == Counter(expected)
    for message in stored:
        told = publishers.acknowledged[message["message"]["name"]]
        assert (message["id"], message["partition"], message["offset"]) == (
            told["id"], told["partition"], told["offset"],
        )  # fmt: skip
    offsets = defaultdict(list)
    for message in stored:
        offsets[message["partition"]].append(message["offset"])
    assert all(found == list(range(1, len(found) + 1)) for found in offsets.values())
    for publisher in range(PUBLISHERS):
        own = [message["message"]["name"] for message in stored if message["key"] == f"key-{publisher}"]
        assert own == [f"{publisher}-{number}" for number in range(MESSAGES)]
    first = publishers.acknowledged["0-0"]
    assert (repeated.status_code, repeated.json()) == (200, {**first, "duplicate": True})
