"""The fault proxy does what it is told to real connections, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from bench.faults.proxy import Proxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """In front of a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    started = await Proxy(server.sockets[0].getsockname()[:2]).start()
    yield started
    await started.stop()
    server.close()


async def connect(proxy: Proxy) -> Streams:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def echoed(streams: Streams, line: bytes = b"hello\n") -> bytes:
    reader, writer = streams
    writer.write(line)
    async with asyncio.timeout(60):
        return await reader.readexactly(len(line))


async def test_in_good_weather_everything_passes_unchanged(proxy: Proxy) -> None:
    body = bytes(range(256)).replace(b"\n", b"") * 4000 + b"\n"

    reader, writer = await connect(proxy)
    writer.write(body)

    assert await reader.readexactly(len(body)) == body
    writer.close()


async def test_latency_delays_both_ways(proxy: Proxy) -> None:
    streams = await connect(proxy)
    await echoed(streams)
    proxy.weather.latency_ms = 60

    begin = time.monotonic()
    await echoed(streams)

    assert time.monotonic() - begin >= 0.12
    streams[1].close()


async def test_a_rate_limits_bytes_per_second(proxy: Proxy) -> None:
    streams = await connect(proxy)
    proxy.weather.bytes_per_s = 10_000

    begin = time.monotonic()
    await echoed(streams, b"x" * 999 + b"\n")

    assert time.monotonic() - begin >= 0.2
    streams[1].close()


async def test_a_stall_holds_everything_back_and_loses_nothing(proxy: Proxy) -> None:
    streams = await connect(proxy)
    proxy.stall()
    waiting = asyncio.create_task(echoed(streams))
    await asyncio.wait([waiting], timeout=0.1)
    stalled = not waiting.done()

    proxy.heal()

    assert stalled
    assert await waiting == b"hello\n"
    streams[1].close()


async def test_a_reset_is_a_reset(proxy: Proxy) -> None:
    streams = await connect(proxy)
    await echoed(streams)

    assert proxy.reset() == 1

    with pytest.raises(ConnectionResetError):
        await streams[0].readexactly(1)
    again = await connect(proxy)
    assert await echoed(again) == b"hello\n"
    again[1].close()


async def test_a_half_close_ends_one_direction(proxy: Proxy) -> None:
    streams = await connect(proxy)
    await echoed(streams)

    proxy.half_close("down")

    assert await streams[0].read() == b""
    streams[1].write(b"still taken\n")
    await streams[1].drain()
    streams[1].close()


async def test_a_cut_lets_so_many_bytes_through_and_resets(proxy: Proxy) -> None:
    streams = await connect(proxy)
    await echoed(streams)
    proxy.cut_after(3, "down")
    streams[1].write(b"hello\n")

    # A RST may overtake what was sent before it.
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)) as cut:
        await streams[0].readexactly(6)

    assert b"hel".startswith(getattr(cut.value, "partial", b""))


async def test_a_dropped_direction_loses_what_is_sent(proxy: Proxy) -> None:
    streams = await connect(proxy)
    await echoed(streams)
    proxy.drop("down")
    streams[1].write(b"lost\n")

    lost = asyncio.create_task(streams[0].read(1))
    await asyncio.wait([lost], timeout=0.1)
    nothing = not lost.done()
    proxy.heal()

    assert nothing
    with pytest.raises(ConnectionResetError):
        await lost


async def test_refused_connections_are_reset(proxy: Proxy) -> None:
    proxy.refuse()

    streams = await connect(proxy)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await echoed(streams)

    proxy.heal()
    again = await connect(proxy)
    assert await echoed(again) == b"hello\n"
    again[1].close()
