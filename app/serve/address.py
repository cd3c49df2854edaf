"""Where the server listens."""

from __future__ import annotations

import errno
import socket

from app.settings import variable

# Left alone, Linux takes 4 MB of answers for each client that does not read them, and we notice that much later.
SEND_BUFFER_BYTES = 256 * 1024
# A client that vanished without a word: how long what was sent to it may stay unacknowledged, and, where nothing is
# sent, when it is first asked for a sign of life, how often, and how many times. RFC 5482, RFC 1122 §4.2.3.6.
UNACKNOWLEDGED_MS = 30_000
ASK_AFTER_S = 30
ASK_EVERY_S = 10
ASK_TIMES = 3


class CannotServe(Exception):
    """The text is one line for a person at a terminal."""


def bound_sockets(host: str, port: int) -> list[socket.socket]:
    """A socket for every address of ``host`` that this machine has, all on one port. Raises CannotServe."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise refused(host, port, error) from error
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, kind, protocol, _, (name, _, *scope) in found:
        try:
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            absent = error
            continue
        prepare(listener)
        try:
            listener.bind((name, port, *scope))
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRNOTAVAIL:
                raise refused(host, port, error) from error
            absent = error  # usual for the IPv6 side of localhost in a container
        else:
            sockets.append(listener)
            port = listener.getsockname()[1]  # of port 0: every address gets the one that the first got
    if not sockets:
        raise refused(host, port, absent or OSError("no address"))
    return sockets


def prepare(listener: socket.socket) -> None:
    """Options of a listening socket; its connections inherit them."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS), ("TCP_KEEPIDLE", ASK_AFTER_S), ("TCP_KEEPINTVL", ASK_EVERY_S),
        ("TCP_KEEPCNT", ASK_TIMES),
    ):  # fmt: skip
        if hasattr(socket, name):  # not all of them are everywhere
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def refused(host: str, port: int, error: OSError) -> CannotServe:
    if error.errno == errno.EADDRINUSE:
        reason = f"another process has that port; stop it, or choose another with {variable('port')}"
    else:
        reason = error.strerror or str(error)
    return CannotServe(f"Logpost cannot listen on {host}, port {port}: {reason}.")


def url(host: str, port: int) -> str:
    name = host.strip("[]")
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
