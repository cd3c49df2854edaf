"""``logpost listen``: whatever is pushed to it is printed, and judged by its signature."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from standardwebhooks import Webhook

from tests.cli.conftest import Logpost

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = '{"n": 1.0, "name": "é"}'


class Listening:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> int:
        return httpx.post(f"{self.url}orders", content=body, headers=headers, trust_env=False, timeout=60).status_code

    def lines(self) -> list[dict[str, object]]:
        """What it printed until it ended by itself."""
        output, _ = self.process.communicate(timeout=100)
        assert self.process.returncode == 0
        return [json.loads(line) for line in output.splitlines()]


@contextmanager
def listening(*options: str) -> Iterator[Listening]:
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "listen", "--port", "0", *options], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("Listening at "), line
        yield Listening(process, line.removeprefix("Listening at ").strip())
    finally:
        process.kill()
        process.communicate()


def signed(secret: str = SECRET, *, ago_s: int = 0) -> dict[str, str]:
    at = datetime.now(UTC) - timedelta(seconds=ago_s)
    return {
        "webhook-id": "msg_1", "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, BODY),
    }  # fmt: skip


def test_what_arrives_is_printed_a_line_each() -> None:
    with listening("--limit", "2") as listener:
        assert listener.post(BODY.encode(), {"logpost-topic": "orders"}) == 200
        assert listener.post(b"\xff\n") == 200
        first, second = listener.lines()
    assert (first["path"], first["message"], first["verified"]) == ("/orders", {"n": 1.0, "name": "é"}, None)
    assert isinstance(first["headers"], dict)
    assert first["headers"]["logpost-topic"] == "orders"
    assert (second["dataBase64"], second["status"]) == ("/wo=", 200)


def test_only_what_is_signed_with_the_secret_now_is_verified() -> None:
    with listening("--secret", SECRET, "--limit", "5") as listener:
        statuses = [
            listener.post(body, headers)
            for body, headers in (
                (BODY.encode(), signed()),
                (BODY.encode(), signed(OTHER)),
                (BODY.encode() + b" ", signed()),
                (BODY.encode(), signed(ago_s=3600)),
                (BODY.encode(), {}),
            )
        ]
        verified = [line["verified"] for line in listener.lines()]
    assert statuses == [200, 401, 401, 401, 401]
    assert verified == [True, False, False, False, False]


def test_it_answers_as_it_is_told() -> None:
    with listening("--status", "503", "--limit", "1") as listener:
        assert listener.post(b"{}") == 503
        assert [line["status"] for line in listener.lines()] == [503]


def test_a_port_that_is_taken_is_said_in_one_line(logpost: Logpost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = logpost("listen", "--port", str(taken.getsockname()[1]))
    assert done.exit_code == 1
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("secret", ["hunter2", "whsec_%%%"])
def test_a_secret_that_is_none_is_refused_and_not_repeated(logpost: Logpost, secret: str) -> None:
    done = logpost("listen", "--secret", secret)
    assert done.exit_code == 2
    assert secret not in done.stderr
