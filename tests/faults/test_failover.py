"""A primary that dies: with a synchronous standby nothing is lost, with one that lags behind the loss is told."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.faults.standby import Pair
from tests.servers import ROOT, wait_until

TOPIC, GROUP = "/v1/topics/orders", "/v1/topics/orders/groups/g"


@pytest.mark.timeout(900)
def test_a_failover_to_a_synchronous_standby_under_load_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.faults.failover", "--seed", "1", "--seconds", "8", "--rate", "200"]
    run = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)  # noqa: PLW1510 - its report is shown
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """With a standby that may lag."""
    pair = Pair(tmp_path, is_synchronous=False)
    try:
        await pair.start()
        yield pair
    finally:
        await pair.stop()


def client_of(pair: Pair, number: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=pair.urls[number], timeout=90)


async def first_event(client: httpx.AsyncClient, path: str, **headers: str) -> dict[str, str]:
    """The fields of the first event of a stream that is more than a comment."""
    fields: dict[str, str] = {}
    async with asyncio.timeout(60), client.stream("GET", path, headers=headers) as response:
        async for line in response.aiter_lines():
            if ": " in line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif not line and "event" in fields:
                return fields
    raise AssertionError(f"no event in {path}")


async def publish(client: httpx.AsyncClient, *texts: str) -> None:
    messages = [{"message": text, "options": {"partitionKey": "k"}} for text in texts]
    answer = await client.post(f"{TOPIC}/messages/batch", json={"messages": messages})
    assert answer.is_success, answer.text


async def browse(client: httpx.AsyncClient, **query: Any) -> httpx.Response:
    return await client.get(f"{TOPIC}/messages", params=query)


async def is_publishing(client: httpx.AsyncClient) -> bool:
    answer = await client.post(f"{TOPIC}/messages", json="new", headers={"Partition-Key": "k"})
    return answer.is_success


async def test_what_a_lagging_standby_has_lost_is_told_and_nobody_waits_for_it(pair: Pair) -> None:
    assert pair.replication is not None
    async with client_of(pair, 0) as one, client_of(pair, 1) as other:
        await one.put(TOPIC, json={"distribution": {"partitions": 1}})
        await one.put(GROUP, json={"startFrom": "earliest"})
        await publish(one, "kept 1", "kept 2")
        await wait_until(lambda: caught_up(pair))
        pair.replication.stall()
        await publish(one, *(f"lost {n}" for n in range(3, 9)))
        taken = (await one.post(f"{GROUP}/pull", json={"max": 100, "waitMs": 60_000})).json()["messages"]
        page = (await browse(one, limit=7)).json()
        stream = await first_event(one, f"{TOPIC}/stream?from=8")
        assert (len(taken), len(page["items"])) == (8, 7)

        await pair.fail_over()
        for client in (one, other):
            await wait_until(lambda of=client: is_publishing(of))  # type: ignore[misc]

        # The log is shorter than what these two had seen of it, and has other messages at the same offsets.
        refused = await browse(other, limit=7, cursor=page["nextCursor"])
        assert (refused.status_code, refused.json()["code"]) == (409, "log_epoch_changed")
        told = await first_event(other, f"{TOPIC}/stream", **{"last-event-id": stream["id"]})
        assert told["event"] == "problem"
        assert "log_epoch_changed" in told["data"]
        # Both are told where to go on, and it is not beyond the end.
        assert (await browse(other, cursor=refused.json()["cursor"])).status_code == 200
        await publish(other, "after")
        following = await first_event(other, f"{TOPIC}/stream", **{"last-event-id": told["id"]})
        assert following["event"] == "message"
        # What was leased under the lost history cannot be settled; everything there is is delivered.
        stale = await other.post(f"{GROUP}/ack", json={"ackIds": [message["ackId"] for message in taken]})
        assert stale.status_code == 409
        texts = [m["message"] for m in (await browse(other)).json()["items"]]
        assert texts[:2] == ["kept 1", "kept 2"]
        assert not any(text.startswith("lost") for text in texts)
        again = (await other.post(f"{GROUP}/pull", json={"max": 100, "waitMs": 60_000})).json()["messages"]
        assert [message["message"] for message in again] == texts


async def test_a_standby_and_a_primary_that_was_taken_over_from_are_not_used(pair: Pair) -> None:
    async with client_of(pair, 0) as client:
        await client.put(TOPIC, json={"distribution": {"partitions": 1}})
        await publish(client, "a")
        await wait_until(lambda: caught_up(pair))

        pair.lead_to(pair.standby)
        for call in (client.get(f"{TOPIC}/stats"), client.get(f"{TOPIC}/messages"), client.get("/readyz")):
            assert (await call).status_code == 503

        await pair.fail_over()
        await wait_until(lambda: is_publishing(client))
        await pair.primary.start()
        pair.lead_to(pair.primary)
        answers = [await client.post(f"{TOPIC}/messages", json="astray") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {503}

        pair.lead_to(pair.standby)
        await wait_until(lambda: is_publishing(client))
        assert "astray" not in (await browse(client)).text


async def caught_up(pair: Pair) -> bool:
    rows = await pair.execute("select from pg_stat_replication where replay_lsn = pg_current_wal_lsn()")
    return bool(rows)
