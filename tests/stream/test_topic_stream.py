"""A topic's stream: every message, once, in order, to everybody, wherever they begin and however they are cut off."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from urllib.parse import urlsplit

from httpx_sse import ServerSentEvent
from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from app.api.events import Life
from app.domain.bookmark import Bookmark, parse_bookmark
from tests.servers import wait_until
from tests.stream.replicas import ORDERS, Replica, nothing_comes, replica, take, texts


async def test_messages_come_as_they_are_published_to_everybody(dsn: str) -> None:
    async with replica(dsn) as one, replica(dsn) as two:
        await one.declare(partitions=2)
        async with one.events(f"{ORDERS}/stream") as here, two.events(f"{ORDERS}/stream") as there:
            first = [await anext(here), await anext(there)]
            assert [event.event for event in first] == ["position", "position"]
            await one.publish("a:1", "b:1", "a:2")
            for events in (here, there):
                assert sorted(texts(await take(events, 3))) == ["a:1", "a:2", "b:1"]


async def test_an_event_has_the_form_of_browsing(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        await one.publish("a:1")
        (browsed,) = (await one.send("GET", f"{ORDERS}/messages"))["items"]
        async with one.events(f"{ORDERS}/stream", **{"from": "earliest"}) as events:
            assert await take(events, 1) == [browsed]


async def test_s55_a_payload_with_line_ends_stays_one_event(dsn: str) -> None:
    payload = b'{\r\n  "a": "data: x",\n\n "b": [1,\r2] }'
    async with replica(dsn) as one:
        await one.declare()
        await one.http.post(f"{ORDERS}/messages", content=payload, headers={"content-type": "application/json"})
        await one.publish("next")
        async with one.events(f"{ORDERS}/stream", **{"from": "earliest"}) as events:
            assert [message["message"] for message in await take(events, 2)] == [
                {"a": "data: x", "b": [1, 2]}, "next",
            ]  # fmt: skip


async def test_a_stream_begins_where_it_is_told_to(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        await one.publish("1", "2")
        third = (await one.publish("3"))[0]
        for start, expected in (("earliest", "1"), ("2", "2"), (third["publishedAt"], "3")):
            async with one.events(f"{ORDERS}/stream", **{"from": start}) as events:
                assert texts(await take(events, 1)) == [expected]


async def test_a_filter_and_a_partition_select(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare(partitions=4)
        await one.publish(*(f"k{n}:{n}" for n in range(20)))
        async with one.events(f"{ORDERS}/stream", **{"from": "earliest"}, filter="key == 'k7'") as events:
            assert texts(await take(events, 1)) == ["k7:7"]
            await one.publish("k8:again", "k7:again")
            assert texts(await take(events, 1)) == ["k7:again"]
        async with one.events(f"{ORDERS}/stream", **{"from": "earliest"}, partition=1) as events:
            assert (await take(events, 1))[0]["partition"] == 1
        await one.send("GET", f"{ORDERS}/stream?filter=nonsense(", status=422)
        await one.send("GET", f"{ORDERS}/stream?partition=4", status=422)


async def test_last_event_id_goes_on_exactly_there_on_any_replica(dsn: str) -> None:
    async with replica(dsn) as one, replica(dsn) as two:
        await one.declare(partitions=3)
        await one.publish(*(f"k{n}:{n}" for n in range(9)))
        async with one.events(f"{ORDERS}/stream", **{"from": "earliest"}) as events:
            seen = [await anext(events) for _ in range(4)]
        async with two.events(f"{ORDERS}/stream", last=seen[-1].id) as events:
            rest = await take(events, 5)
            await nothing_comes(events)
        assert sorted(texts([event.json() for event in seen] + rest)) == [f"k{n}:{n}" for n in range(9)]
        async with two.events(f"{ORDERS}/stream", lastEventId=seen[-1].id) as events:
            assert await take(events, 5) == rest


async def test_nothing_is_missed_or_repeated_over_cuts_at_any_byte(dsn: str) -> None:
    """Each connection is read for a random number of bytes, and comes back with the last id it has whole."""
    total, last = 400, ""
    seen: list[dict[str, Any]] = []
    chance = random.Random(5)
    async with replica(dsn) as one, replica(dsn) as two:
        await one.declare(partitions=3)
        publishing = asyncio.create_task(_publish_slowly(one, total))
        while len(seen) < total:
            events = await _read_some(chance.choice((one, two)), last, chance.randrange(1, 20_000))
            for event in events:
                last = event.id
                if event.event == "message":
                    seen.append(event.json())
        await publishing
    assert sorted(int(message["message"]) for message in seen) == list(range(total))
    by_partition: dict[int, list[int]] = {}
    for message in seen:
        by_partition.setdefault(message["partition"], []).append(message["offset"])
    assert all(offsets == sorted(offsets) for offsets in by_partition.values())


async def _publish_slowly(to: Replica, total: int) -> None:
    for at in range(0, total, 4):
        await to.publish(*(str(n) for n in range(at, at + 4)))
        await asyncio.sleep(0.005)


async def _read_some(of: Replica, last: str, size: int) -> list[ServerSentEvent]:
    """The whole events in the first ``size`` bytes of a body, or of what comes within a second."""
    place = urlsplit(of.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    header = f"Last-Event-ID: {last}\r\n" if last else ""
    request = f"GET {ORDERS}/stream?from=earliest HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"\r\n\r\n")
    body = b""
    try:
        async with asyncio.timeout(1):
            while len(body) < size:
                length = int(await reader.readline(), 16)
                body += (await reader.readexactly(length + 2))[:-2]
                if not length:
                    break
    except TimeoutError:
        pass
    writer.transport.abort()
    lines, decoder = SSELineDecoder(), SSEDecoder()
    text = body[:size].decode(errors="replace")
    found = [decoder.decode(line) for line in lines.decode(text)]
    return [event for event in found if event is not None]


async def test_what_is_not_retained_any_more_is_told_first(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        await one.publish("1", "2", "3", "4")
        async with one.events(f"{ORDERS}/stream", **{"from": "earliest"}) as events:
            last = (await anext(events)).id
        await one.declare(retention={"maxCount": 1})
        async with one.events(f"{ORDERS}/stream", last=last) as events:
            gap = await anext(events)
            assert (gap.event, gap.json()) == ("gap", {"partitions": [{"partition": 0, "from": 2, "to": 3}]})
            assert texts(await take(events, 1)) == ["4"]


async def test_a_position_ahead_of_the_log_is_told_and_clamped(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        await one.publish("1")
        async with one.events(f"{ORDERS}/stream", **{"from": "earliest"}) as events:
            mark = parse_bookmark((await anext(events)).id)
        assert mark is not None
        for odd in (Bookmark(mark.topic_id, mark.timeline, (99,)), Bookmark(mark.topic_id, mark.timeline + 1, (2,))):
            async with one.events(f"{ORDERS}/stream", last=str(odd)) as events:
                problem = await anext(events)
                assert (problem.event, problem.json()["code"]) == ("problem", "log_epoch_changed")
                assert [event async for event in events] == []
            async with one.events(f"{ORDERS}/stream", last=problem.id) as events:
                await one.publish("next")
                assert texts(await take(events, 1)) == ["next"]


async def test_raised_partitions_are_followed_from_their_beginning(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        async with one.events(f"{ORDERS}/stream") as events:
            await anext(events)
            await one.declare(partitions=8)
            keys = [f"k{n}:{n}" for n in range(20)]
            await one.publish(*keys)
            assert sorted(texts(await take(events, 20))) == sorted(keys)


async def test_a_deleted_topic_ends_its_stream_with_a_problem(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        async with one.events(f"{ORDERS}/stream") as events:
            await anext(events)
            await one.send("DELETE", ORDERS)
            problem = await anext(events)
            assert (problem.event, problem.json()["code"]) == ("problem", "topic_not_found")
        await one.send("GET", f"{ORDERS}/stream", status=404)


async def test_s55_odd_ids_are_refused(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        for odd in ("x", "msg_1_2_3", "AAAA", "é", "a" * 20_000, "%0Adata: x"):
            answer = await one.http.get(f"{ORDERS}/stream", params={"lastEventId": odd})
            assert answer.status_code == 422, odd


async def test_a_slow_client_is_dropped_and_the_others_are_not(dsn: str) -> None:
    """The slow one reads nothing until more has come than is kept for it, then finds out."""
    big = "x" * 200_000
    async with replica(dsn) as one:
        await one.declare()
        async with one.events(f"{ORDERS}/stream") as quick, one.events(f"{ORDERS}/stream") as slow:
            await anext(quick)
            await anext(slow)
            for n in range(90):
                await one.publish(f"{n}{big}")
                await take(quick, 1)
            ending = [event async for event in slow]
            assert ending[-1].json()["code"] == "too_slow"
            assert len(ending) < 90
            last = ending[-1].id
        async with one.events(f"{ORDERS}/stream", last=last) as again:
            rest = await take(again, 90 - len(ending) + 1)
            assert [text.rstrip("x") for text in texts(rest)] == [str(n) for n in range(len(ending) - 1, 90)]


async def test_streams_end_properly_when_the_server_drains_or_they_are_old(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        one.parts.streams.life = Life(age_s=(0.1, 0.2))
        async with one.events(f"{ORDERS}/stream") as events:
            assert [event.event async for event in events] == ["position"]
        one.parts.streams.life = Life()
        async with one.events(f"{ORDERS}/stream") as events:
            await anext(events)
            one.app.drain()
            assert [event async for event in events] == []
        async with one.events(f"{ORDERS}/stream") as events:
            assert (await anext(events)).json()["code"] == "shutting_down"


async def test_heartbeats_are_comments_and_tell_a_filtered_client_where_it_is(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        one.parts.streams.life = Life(heartbeat_s=0.1)
        async with one.events(f"{ORDERS}/stream", filter="key == 'never'") as events:
            start = await anext(events)
            await one.publish("a:1")
            moved = await anext(events)
            assert moved.event == "position"
            assert moved.id != start.id
        async with one.http.stream("GET", f"{ORDERS}/stream") as answer:
            body = ""
            async for text in answer.aiter_text():
                body += text
                if body.endswith(":\n:\n"):
                    break
            head: dict[str, Any] = dict(answer.headers)
        assert head["content-type"].startswith("text/event-stream")
        assert (head["cache-control"], head["x-accel-buffering"]) == ("no-cache", "no")
        assert "\nretry: " in body


async def test_a_feed_ends_with_its_last_client(dsn: str) -> None:
    async with replica(dsn) as one:
        await one.declare()
        async with one.events(f"{ORDERS}/stream") as events:
            await anext(events)
            assert len(one.parts.feeds._feeds) == 1
        await wait_until(lambda: not one.parts.feeds._feeds and not one.parts.streams.open)
