"""``logpost serve`` from its start to a clean end."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import sys
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from app.storage.migrate import MIGRATION_LOCK
from tests.process.launch import alive, launched
from tests.process.postgres import dsn_in
from tests.servers import READY, SERVE, Servers, wait_until

# Locks are seen across databases: ours only, for tests run side by side.
WAITING = """
    select count(*) from pg_locks join pg_database on pg_database.oid = database
    where locktype = 'advisory' and not granted and datname = current_database()
"""
IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
LOGPOST = Path(sys.executable).with_name("logpost")


async def get(url: str, path: str = "/readyz") -> httpx.Response:
    async with httpx.AsyncClient(timeout=90) as client:
        return await client.get(url + path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_ready_is_said_once_and_meant(servers: Servers, dsn: str) -> None:
    """As long as the schema is not there, nobody is let in; then one line says so."""
    port = free_port()
    blocker = await asyncpg.connect(dsn)
    await blocker.execute("select pg_advisory_lock($1)", MIGRATION_LOCK)
    server = servers.spawn(dsn=dsn, env={"LOGPOST_PORT": str(port), "LOGPOST_WORKERS": "2"})
    await wait_until(lambda: blocker.fetchval(WAITING))
    with pytest.raises(httpx.ConnectError):
        await get(f"http://127.0.0.1:{port}")
    await blocker.close()
    await server.ready()
    assert server.url == f"http://127.0.0.1:{port}"
    assert (await get(server.url)).status_code == 200
    assert len(server.workers()) == 2
    assert await server.stop() == 0
    assert server.process.stdout is not None
    assert server.process.stdout.read() == ""
    for line in server.log().splitlines():
        assert json.loads(line)["event"]


async def test_metrics_are_of_all_workers_whoever_answers(servers: Servers, dsn: str) -> None:
    server = await servers.start(dsn=dsn, env={"LOGPOST_WORKERS": "2"})
    for _ in range(20):  # a connection each, so that both workers get some
        async with httpx.AsyncClient(base_url=f"{server.url}/v1/topics", timeout=60) as client:
            assert (await client.put("/counted")).is_success
            assert (await client.post("/counted/messages", json=1)).is_success

    async def everybody_counts(number: int) -> bool:
        answers = [(await get(server.url, "/metrics")).text for _ in range(12)]
        return all(f'logpost_messages_total{{event="published"}} {number}.0' in answer for answer in answers)

    await wait_until(lambda: everybody_counts(20))
    os.kill(server.workers()[0], signal.SIGKILL)
    await wait_until(lambda: len(server.workers()) == 2)
    await wait_until(lambda: everybody_counts(20))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_stops_everything_in_order_and_data_stays(
    servers: Servers, tmp_path: Path, number: signal.Signals
) -> None:
    server = await servers.start()
    kept = await asyncpg.connect(dsn_in(tmp_path / "data"))
    await kept.execute("create table kept as select 7 as n")
    tree = server.tree()
    assert await server.stop(number) == 0
    assert not alive(tree)
    kept.terminate()
    assert not (tmp_path / "data/postgres/postmaster.pid").exists()
    assert "database system is shut down" in (tmp_path / "data/postgres.log").read_text()
    await servers.start()
    again = await asyncpg.connect(dsn_in(tmp_path / "data"))
    assert await again.fetchval("select n from kept") == 7
    await again.close()


async def test_a_signal_during_the_start_is_obeyed(servers: Servers, dsn: str) -> None:
    blocker = await asyncpg.connect(dsn)
    await blocker.execute("select pg_advisory_lock($1)", MIGRATION_LOCK)
    server = servers.spawn(dsn=dsn)
    await wait_until(lambda: blocker.fetchval(WAITING))
    assert await server.stop() == 0
    await blocker.close()


async def test_ctrl_c_in_a_terminal_is_a_clean_stop(tmp_path: Path) -> None:
    """It reaches every process of the terminal; only the supervisor may act on it."""
    ours, terminal = pty.openpty()
    settings = {"LOGPOST_PORT": "0", "LOGPOST_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-c", IN_TERMINAL, *SERVE]
    with launched(command, tmp_path, settings, stdin=terminal, start_new_session=True) as server:
        assert (await server.line()).startswith(READY), server.errors.read_text()
        children = psutil.Process(server.process.pid).children()
        assert len(children) == 2
        assert not [child for child in children if os.getpgid(child.pid) == os.tcgetpgrp(ours)]
        os.write(ours, b"\x03")
        assert await server.exit_code() == 0
    os.close(terminal)
    os.close(ours)
    assert "died" not in server.errors.read_text()
    assert "database system is shut down" in (tmp_path / "data/postgres.log").read_text()


async def test_a_taken_port_is_one_clear_line(servers: Servers, dsn: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = servers.spawn(dsn=dsn, args=["--port", str(port)])
        assert await server.exit_code() == 1
    (line,) = server.log().splitlines()
    assert f"port {port}" in line
    assert "LOGPOST_PORT" in line


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
async def test_an_address_that_is_not_ours_is_one_clear_line(servers: Servers, dsn: str, host: str) -> None:
    server = servers.spawn(dsn=dsn, args=["--host", host, "--insecure"])
    assert await server.exit_code() == 1
    (line,) = server.log().splitlines()
    assert host in line


async def test_a_database_that_refuses_is_one_clear_line(servers: Servers, dsn: str) -> None:
    server = servers.spawn(dsn=dsn.replace("/logpost_test_", "/no_such_"))
    assert await server.exit_code() == 1
    (line,) = server.log().splitlines()
    assert line.startswith("The database refused the connection")


@pytest.mark.parametrize(("secret_keys", "warned"), [("", True), ("k" * 32, False)])
async def test_whoever_has_keys_and_stores_secrets_as_they_are_is_told_once(
    servers: Servers, dsn: str, secret_keys: str, warned: bool
) -> None:
    env = {"LOGPOST_ROOT_KEY": "r" * 32, "LOGPOST_SECRET_KEYS": secret_keys, "LOGPOST_WORKERS": "2"}
    server = await servers.start(dsn=dsn, env=env)
    assert await server.stop() == 0
    events = [json.loads(line) for line in server.log().splitlines()]
    warnings = [event["setting"] for event in events if event["event"] == "secrets_not_encrypted"]
    assert warnings == ["LOGPOST_SECRET_KEYS"] * warned


async def test_a_worker_that_cannot_start_ends_the_server(servers: Servers, dsn: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif 'app.worker' in sys.orig_argv:\n    os._exit(7)\n")
    server = servers.spawn(dsn=dsn, env={"PYTHONPATH": str(tmp_path)})
    assert await server.exit_code() == 1
    assert "A worker ended with code 7 before it was ready" in server.log()


async def test_another_app_in_the_working_directory_is_left_alone(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__init__.py").write_text("raise SystemExit('the wrong app')")
    settings = {"LOGPOST_PORT": "0", "LOGPOST_DATABASE_URL": dsn}
    with launched([LOGPOST, "serve"], tmp_path, settings, cwd=tmp_path) as server:
        assert (await server.line()).startswith(READY), server.errors.read_text()
        server.process.terminate()
        assert await server.exit_code() == 0


async def test_make_serve_takes_the_settings_and_stops_cleanly(tmp_path: Path) -> None:
    """As if it were run in a terminal: Ctrl-C goes to make and to the server."""
    port = free_port()
    settings = {"LOGPOST_PORT": str(port), "LOGPOST_HOST": "localhost", "LOGPOST_WORKERS": "2"}
    command = [
        "make",
        "--no-print-directory",
        "--old-file=.venv/.installed",
        "serve",
        f"LOGPOST_DATA_DIR={tmp_path / 'data'}",
    ]
    with launched(command, tmp_path, settings, start_new_session=True) as make:
        assert await make.line() == f"{READY}http://localhost:{port}\n", make.errors.read_text()
        tree = psutil.Process(make.process.pid).children(recursive=True)
        assert sum("app.worker" in child.cmdline() for child in tree) == 2
        os.killpg(make.process.pid, signal.SIGINT)
        await make.exit_code()
    await wait_until(lambda: not [child for child in tree if child.is_running()])
    assert "database system is shut down" in (tmp_path / "data/postgres.log").read_text()
