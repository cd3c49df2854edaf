"""The guard at connect time: whatever a name resolves to, however a URL is spelled, nothing internal is dialled."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.webhook.address import Policy
from app.webhook.dial import SystemLookup
from app.webhook.request import Request
from app.webhook.send import Sender
from tests.receiver import Receiver

ANY_PORT = (range(1, 65536),)
INTERNET_ONLY = Policy(ANY_PORT)
LOOPBACK = Policy(ANY_PORT, (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))


def post(url: str) -> Request:
    return Request(url, (), b"{}", 5000)


class Names:
    """A resolver of our own: answers one after the other, the last one again and again."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answer


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every address a socket of the event loop was told to connect to; nothing leaves this machine."""
    attempts: list[object] = []

    async def connect(_self: object, _sock: socket.socket, address: tuple[object, ...]) -> None:
        attempts.append(address[0])
        raise ConnectionRefusedError(111, "not in this test")

    monkeypatch.setattr("asyncio.selector_events.BaseSelectorEventLoop.sock_connect", connect)
    return attempts


INTERNAL_ANSWERS = [
    ["127.0.0.1"],
    ["::1"],
    ["10.0.0.5"],
    ["169.254.169.254"],
    ["fe80::1%2"],
    ["::ffff:127.0.0.1"],
    ["64:ff9b::a9fe:a9fe"],
    ["8.8.8.8", "10.0.0.5"],
    ["10.0.0.5", "8.8.8.8"],
    ["8.8.8.8", "::1"],
    ["2606:4700:4700::1111", "127.0.0.1"],
    ["0.0.0.0"],
    ["224.0.0.1"],
    ["192.0.2.1"],
]


@pytest.mark.parametrize("answer", INTERNAL_ANSWERS, ids=", ".join)
async def test_s28_a_name_with_an_internal_address_is_not_dialled(dialled: list[object], answer: Sequence[str]) -> None:
    async with Sender(INTERNET_ONLY, lookup=Names(answer)) as sender:
        result = await sender.send(post("http://hooks.example.com/"))
    assert result.error_class == "blocked_address"
    assert dialled == []
    # What it resolves to is nobody's business who may only declare webhooks.
    assert not any(address in str(result) for address in answer)


async def test_a_public_name_is_dialled_at_the_address_that_was_judged(dialled: list[object]) -> None:
    names = Names(["8.8.8.8"])
    async with Sender(INTERNET_ONLY, lookup=names) as sender:
        result = await sender.send(post("http://hooks.example.com/"))
    assert result.error_class == "connect"
    assert dialled == ["8.8.8.8"]
    assert names.asked == ["hooks.example.com"]


async def test_s27_a_name_that_turns_internal_later_is_not_dialled_then(dialled: list[object]) -> None:
    async with Sender(INTERNET_ONLY, lookup=Names(["8.8.8.8"], ["127.0.0.1"])) as sender:
        first = await sender.send(post("http://rebind.example.com/"))
        second = await sender.send(post("http://rebind.example.com/"))
    assert (first.error_class, second.error_class) == ("connect", "blocked_address")
    assert dialled == ["8.8.8.8"]


LITERALS = [
    "http://127.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/latest/meta-data/",
    "http://0.0.0.0/", "http://[64:ff9b::7f00:1]/", "http://[fe80::1]/", "http://10.1.2.3:8080/",
]  # fmt: skip


@pytest.mark.parametrize("url", LITERALS)
async def test_a_literal_that_slipped_through_the_declaration_is_not_dialled(dialled: list[object], url: str) -> None:
    async with Sender(INTERNET_ONLY) as sender:
        assert (await sender.send(post(url))).error_class == "blocked_address"
    assert dialled == []


SPELLINGS = ["http://127.1/", "http://0x7f.1/", "http://2130706433/", "http://0177.0.0.1/", "http://①②⑦.⓪.⓪.①/"]


@pytest.mark.parametrize("url", SPELLINGS)
async def test_s24_no_spelling_of_an_internal_address_is_dialled(dialled: list[object], url: str) -> None:
    async with Sender(INTERNET_ONLY) as sender:
        assert (await sender.send(post(url))).error_class is not None
    assert dialled == []


async def test_s32_a_port_outside_the_policy_is_not_dialled(dialled: list[object]) -> None:
    async with Sender(Policy((range(443, 444),)), lookup=Names(["8.8.8.8"])) as sender:
        assert (await sender.send(post("http://hooks.example.com:5432/"))).error_class == "blocked_address"
    assert dialled == []


async def test_allowed_networks_are_reached_by_name_and_by_number() -> None:
    async with Receiver() as receiver, Sender(LOOPBACK, lookup=Names(["127.0.0.1"])) as sender:
        assert (await sender.send(post(receiver.url))).accepted
        assert (await sender.send(post(f"http://hooks.example.com:{receiver.port}/"))).accepted
        assert receiver.requests[1].header("Host") == f"hooks.example.com:{receiver.port}"


async def test_a_name_without_addresses_is_a_dns_failure() -> None:
    async with Sender(LOOPBACK, lookup=Names([])) as sender:
        assert (await sender.send(post("http://nowhere.example.com/"))).error_class == "dns"


async def test_a_lookup_that_hangs_ends_with_the_deadline() -> None:
    async def hang(_host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async with Sender(LOOPBACK, lookup=hang) as sender:
        answer = await sender.send(Request("http://hooks.example.com/", (), b"{}", 100))
    assert answer.error_class == "timeout"


async def test_a_name_is_looked_up_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    proceed = threading.Event()

    def getaddrinfo(host: str, *_args: object, **_options: object) -> list[tuple[object, ...]]:
        calls.append(host)
        proceed.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    lookup = SystemLookup()
    waiting = [asyncio.ensure_future(lookup("a.example.com")) for _ in range(3)]
    abandoned = asyncio.ensure_future(lookup("a.example.com"))
    await asyncio.sleep(0)
    abandoned.cancel()
    proceed.set()
    assert await asyncio.gather(*waiting) == [["8.8.8.8"]] * 3
    assert calls == ["a.example.com"]
    assert await lookup("a.example.com") == ["8.8.8.8"]
    assert calls == ["a.example.com"] * 2


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", f"{path}.key", "-out", f"{path}.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(Path(f"{path}.key").read_text() + Path(f"{path}.crt").read_text())
    return path


async def test_s34_only_a_trusted_certificate_for_the_name_will_do(certificate: Path) -> None:
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=certificate)
    async with Receiver(tls=server_side) as receiver:
        by_name = f"https://localhost:{receiver.port}/hook"
        async with Sender(LOOPBACK) as sender:
            untrusted = await sender.send(post(by_name))
        async with Sender(LOOPBACK, tls=trusting) as sender:
            trusted = await sender.send(post(by_name))
            another_name = await sender.send(post(receiver.url))
    assert untrusted.error_class == "tls"
    assert "self-signed" in (untrusted.error or "")
    assert trusted.accepted
    assert another_name.error_class == "tls"
    assert len(receiver.requests) == 1


async def test_something_else_than_a_handshake_is_a_tls_failure() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 This is plain HTTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Sender(LOOPBACK) as sender:
        answer = await sender.send(post(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
    assert answer.error_class == "tls"


async def test_a_handshake_that_stalls_ends_with_the_deadline() -> None:
    async with Receiver() as receiver, Sender(LOOPBACK) as sender:
        answer = await sender.send(Request(f"https://127.0.0.1:{receiver.port}/", (), b"{}", 200))
    assert answer.error_class == "timeout"
