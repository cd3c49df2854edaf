"""The answers given in the place of the application: to what is no request, comes too late or is too much.

The form is that of every other error (RFC 9457, ``api/problems.py``); these never reach the application, which would
have to be a request for that.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    code: str
    detail: str
    retry_after: int | None = None

    def body(self) -> bytes:
        document = {
            "type": f"urn:logpost:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "errors": [],
        }
        return orjson.dumps(document)

    def headers(self) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(self.body())).encode()),
            (b"connection", b"close"),
        ]
        if self.retry_after is not None:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        return headers

    def response(self) -> bytes:
        """As it goes over the wire."""
        lines = [name + b": " + value + b"\r\n" for name, value in self.headers()]
        return b"".join([STATUS_LINE[self.status], *lines, b"\r\n", self.body()])


def malformed(reason: str) -> Refusal:
    return Refusal(400, "malformed_request", f"This is not an HTTP/1.1 request: {reason}.")


NO_HOST = Refusal(400, "invalid_host", "An HTTP/1.1 request has exactly one valid Host header.")
REQUEST_TIMEOUT = Refusal(408, "request_timeout", "The request did not arrive whole in time.")
HEAD_TOO_LARGE = Refusal(431, "headers_too_large", "The request line and the headers are too large.")
INTERNAL = Refusal(500, "internal", "Something went wrong here. The log has it.")
NO_TUNNEL = Refusal(501, "not_implemented", "CONNECT is for proxies.")
SHUTTING_DOWN = Refusal(503, "shutting_down", "The server is stopping; try again.", 1)
TOO_MANY_CONNECTIONS = Refusal(503, "too_many_connections", "The server has all the connections it can hold.", 1)
UNSUPPORTED_VERSION = Refusal(505, "http_version_not_supported", "Use HTTP/1.1 or HTTP/1.0.")
