"""``logpost listen``: a receiver on this machine that prints what arrives, for trying pushes and hooks out."""

from __future__ import annotations

import base64
import json
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import click

from app.cli.output import Output
from app.domain.errors import InvalidField
from app.domain.signature import parse_secret, verify

MAX_BODY_BYTES = 16 * 1024 * 1024
# How far a signature's time may be from ours: what the libraries of Standard Webhooks tolerate.
TOLERANCE_S = 300


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65_535), default=9000, show_default=True, help="0 is any free one.")
@click.option("--secret", envvar="LOGPOST_LISTEN_SECRET", show_envvar=True, help="Verifies: whsec_ and base64.")
@click.option("--status", type=click.IntRange(200, 599), default=200, show_default=True, help="What to answer.")
@click.option("--limit", type=click.IntRange(min=1), help="End after this many.")
def listen(*, host: str, port: int, secret: str | None, status: int, limit: int | None) -> None:
    """Receive pushes and hooks, and print each as a JSON line.

    With a secret, `verified` says whether the request is signed with it, and one that is not is answered 401.
    """
    try:
        key = None if secret is None else parse_secret(secret, "--secret")
    except InvalidField as error:
        raise click.UsageError(str(error)) from error
    try:
        server = Listener((host, port), key=key, status=status, limit=limit)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    with server:
        click.echo(f"Listening at http://{host}:{server.server_port}/", err=True)
        server.serve_forever(poll_interval=0.1)


class Listener(ThreadingHTTPServer):
    """``key`` None verifies nothing; ``limit``: how many requests until it ends, None for ever."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], *, key: bytes | None, status: int, limit: int | None) -> None:
        super().__init__(address, Arrival)
        self.key = key
        self.status = status
        self._left = limit
        self._output = Output()
        self._turn = Lock()

    def arrived(self, document: dict[str, Any]) -> None:
        """Prints it. One at a time, so that lines stay lines."""
        with self._turn:
            if self._left == 0:
                return
            self._output.line(json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"))
            self._output.stream.flush()
            if self._left is not None:
                self._left -= 1

    def shutdown_request(self, request: Any) -> None:
        """After the answer of the last one was sent."""
        super().shutdown_request(request)
        if self._left == 0:
            self.shutdown()


class Arrival(BaseHTTPRequestHandler):
    """One connection, one request: what is tried out has no need of more."""

    server: Listener

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self._answer(413 if length.isdecimal() else 411)
            return
        body = self.rfile.read(int(length))
        verified = None if self.server.key is None else is_signed(self.headers, body, self.server.key)
        status = 401 if verified is False else self.server.status
        self.server.arrived(
            {
                "path": self.path, "status": status, "verified": verified,
                "headers": {name.lower(): value for name, value in self.headers.items()}, **shown(body),
            }
        )  # fmt: skip
        self._answer(status)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library calls it
        """Nothing beside the lines."""

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()


def is_signed(headers: Message, body: bytes, key: bytes) -> bool:
    """Whether the request is signed with ``key``, now. https://www.standardwebhooks.com"""
    webhook_id, timestamp = headers.get("webhook-id"), headers.get("webhook-timestamp", "")
    if webhook_id is None or not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return False
    return verify(webhook_id, int(timestamp), body, headers.get("webhook-signature", ""), key)


def shown(body: bytes) -> dict[str, Any]:
    """As a message is shown in JSON: itself if it is JSON, its bytes in base64 if not."""
    try:
        return {"message": json.loads(body)}
    except ValueError:
        return {"dataBase64": base64.b64encode(body).decode()}
