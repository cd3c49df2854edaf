"""A lean HTTP/1.1 client for load: one connection, one request at a time, nothing parsed that is not needed."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit


class Client:
    """A keep-alive connection. Made by ``Client.open``; presents ``key`` if there is one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader = reader
        self._writer = writer
        self._more = f"authorization: Bearer {key}\r\n".encode() if key else b""

    @classmethod
    async def open(cls, url: str, key: str = "") -> Client:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 20)
        return cls(reader, writer, key)

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._writer.write(
            b"%b %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
            % (method.encode(), path.encode(), len(body), self._more, body)
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        start = head.find(b"content-length: ") + 16
        length = int(head[start : head.index(b"\r", start)])
        return int(head[9:12]), await self._reader.readexactly(length) if length else b""

    async def post(self, path: str, body: bytes) -> bytes:
        """The body of an answer that is a 2xx; anything else ends the benchmark."""
        status, answer = await self.request("POST", path, body)
        if status // 100 != 2:
            raise RuntimeError(f"{path}: {status} {answer[:500]!r}")
        return answer

    async def put(self, path: str, document: Any) -> None:
        status, answer = await self.request("PUT", path, json.dumps(document).encode())
        if status not in (200, 201):
            raise RuntimeError(f"{path}: {status} {answer[:500]!r}")

    async def create(self, path: str, document: Any) -> Any:
        return json.loads(await self.post(path, json.dumps(document).encode()))

    def close(self) -> None:
        self._writer.close()


def ack_ids(answer: bytes) -> list[bytes]:
    """The ackIds of a pull, without parsing it: they hold nothing that JSON escapes."""
    return [part[: part.index(b'"')] for part in answer.split(b'"ackId":"')[1:]]


def ack_body(ids: list[bytes]) -> bytes:
    return b'{"ackIds":["' + b'","'.join(ids) + b'"]}'


def payload(size: int) -> bytes:
    """An order event of about ``size`` bytes."""
    event = {"type": "order.paid", "order": "ord_123", "customer": "acct_42", "total": 1299, "currency": "EUR"}
    event["note"] = "x" * max(size - len(json.dumps(event)) - 12, 0)
    return json.dumps(event).encode()
