"""Where the server listens, and what its connections are told."""

from __future__ import annotations

import socket
import sys

import pytest

from app.serve.address import ASK_AFTER_S, ASK_EVERY_S, ASK_TIMES, UNACKNOWLEDGED_MS, bound_sockets


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere connections inherit less")
def test_a_client_that_vanished_without_a_word_is_noticed_within_a_minute() -> None:
    (listener,) = bound_sockets("127.0.0.1", 0)
    with listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            told = [
                accepted.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            ]
    assert told == [ASK_AFTER_S, ASK_EVERY_S, ASK_TIMES, UNACKNOWLEDGED_MS]
    assert ASK_AFTER_S + ASK_EVERY_S * ASK_TIMES <= 60
