"""What a webhook endpoint can do to its caller: behaviours for ``tests/receiver.py``, from well-formed to hostile."""

from __future__ import annotations

import asyncio
import gzip
import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from tests.receiver import Behaviour, Conversation


def answer(status: int = 200, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Behaviour:
    """A well-formed answer."""

    async def behave(talk: Conversation) -> None:
        await talk.send(_answer_head(status, {"Content-Length": str(len(body)), **(headers or {})}), body)

    return behave


def acting(action: str, status: int = 200, body: bytes = b"") -> Behaviour:
    return answer(status, {"Logpost-Action": action}, body)


def retry_after(status: int, seconds: int, *, as_date: bool = False) -> Behaviour:
    """``Retry-After`` in either form; a date counts from the ``Date`` beside it."""

    async def behave(talk: Conversation) -> None:
        now = datetime.now(UTC)
        headers = {"Retry-After": str(seconds)}
        if as_date:
            headers = {
                "Date": format_datetime(now, usegmt=True),
                "Retry-After": format_datetime(now + timedelta(seconds=seconds), usegmt=True),
            }
        await answer(status, headers)(talk)

    return behave


def redirect(to: str, status: int = 307) -> Behaviour:
    return answer(status, {"Location": to})


def slow(seconds: float, then: Behaviour | None = None) -> Behaviour:
    """Thinks for a while, then answers."""

    async def behave(talk: Conversation) -> None:
        await talk.wait(seconds)
        await (then or answer())(talk)

    return behave


def held(until: asyncio.Event, then: Behaviour | None = None) -> Behaviour:
    """Answers when it is let go."""

    async def behave(talk: Conversation) -> None:
        waiting = [asyncio.ensure_future(until.wait()), asyncio.ensure_future(talk.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
        await (then or answer())(talk)

    return behave


def hang() -> Behaviour:
    """Takes the request and never answers."""

    async def behave(talk: Conversation) -> None:
        await talk.wait()

    return behave


def trickle_head(pause_s: float = 0.05) -> Behaviour:
    """A byte of the head now and then, without end."""

    async def behave(talk: Conversation) -> None:
        await talk.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not talk.closing.is_set():
            await talk.send(b"a")
            await talk.wait(pause_s)

    return behave


def trickle_body(status: int = 200, pause_s: float = 0.05) -> Behaviour:
    """A prompt head, then a byte of the body now and then, without end."""

    async def behave(talk: Conversation) -> None:
        await talk.send(_answer_head(status, {"Content-Length": "1000000"}))
        while not talk.closing.is_set():
            await talk.send(b"a")
            await talk.wait(pause_s)

    return behave


def raw(*parts: bytes, cut: bool = True) -> Behaviour:
    """Exactly these bytes, then FIN."""

    async def behave(talk: Conversation) -> None:
        await talk.send(*parts)
        talk.cut = cut

    return behave


def hang_up() -> Behaviour:
    """FIN instead of an answer."""
    return raw()


def reset(*before: bytes) -> Behaviour:
    """RST, after these bytes of an answer."""

    async def behave(talk: Conversation) -> None:
        await talk.send(*before)
        if before:
            await talk.wait(0.05)  # an RST overtakes what was sent just before it
        talk.reset()

    return behave


def huge_body(size: int, status: int = 200) -> Behaviour:
    """A body of ``size`` bytes, a multiple of 64 kB, as it says."""
    return _endless(_answer_head(status, {"Content-Length": str(size)}), b"x" * 65536, size // 65536)


def huge_chunked_body(status: int = 200) -> Behaviour:
    """Chunks without end."""
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    return _endless(_answer_head(status, {"Transfer-Encoding": "chunked"}), chunk, None)


def gzip_bomb(size: int, status: int = 200) -> Behaviour:
    """A body that says it is gzip, and would be ``size`` bytes."""
    body = gzip.compress(bytes(size), 9)
    return answer(status, {"Content-Encoding": "gzip"}, body)


def interim_flood(status: int = 100, count: int | None = None) -> Behaviour:
    """Interim answers, without end or ``count`` of them before a 200."""

    async def behave(talk: Conversation) -> None:
        if count is None:
            await _endless(b"", _answer_head(status) * 1000, None)(talk)
        else:
            await talk.send(_answer_head(status) * count)
            await answer()(talk)

    return behave


def header_bomb() -> Behaviour:
    """One header that never ends."""
    return _endless(b"HTTP/1.1 200 OK\r\nX-Bomb: ", b"x" * 65536, None)


def many_headers(count: int | None = None) -> Behaviour:
    """Headers without end, or ``count`` of them."""
    if count is None:
        return _endless(b"HTTP/1.1 200 OK\r\n", b"X-Bomb: x\r\n" * 1000, None)
    return raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", b"X-Bomb: x\r\n" * count, b"\r\n")


def wrong_length(status: int = 200, *, claimed: int, body: bytes) -> Behaviour:
    """A ``Content-Length`` the body does not have; then FIN."""
    return raw(_answer_head(status, {"Content-Length": str(claimed)}), body)


def two_answers(first: int = 500, second: int = 200) -> Behaviour:
    """An answer, and right behind it another one that nobody asked for. The connection stays open."""
    head = {"Content-Length": "0"}
    return raw(_answer_head(first, head) + _answer_head(second, head), cut=False)


def late_second_answer(first: int = 500, second: int = 200, pause_s: float = 0.05) -> Behaviour:
    """The same, the second one while the connection is idle."""

    async def behave(talk: Conversation) -> None:
        await answer(first)(talk)
        await talk.wait(pause_s)
        await answer(second)(talk)

    return behave


def _answer_head(status: int, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return "\r\n".join([*lines, "", ""]).encode()


def _endless(head: bytes, part: bytes, count: int | None) -> Behaviour:
    """``part`` ``count`` times, or again and again until the other side has enough."""

    async def behave(talk: Conversation) -> None:
        talk.close()
        await talk.send(head)
        for _ in itertools.count() if count is None else range(count):
            if talk.closing.is_set():
                return
            await talk.send(part)
            await asyncio.sleep(0)

    return behave
