"""kill -9 of any process of a server: what is committed stays, and service comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import asyncpg
import httpx

from tests.process.launch import alive
from tests.process.postgres import dsn_in
from tests.servers import Servers, wait_until


async def test_a_dead_worker_is_replaced_while_clients_wait(servers: Servers, dsn: str) -> None:
    server = await servers.start(dsn=dsn)
    for _ in range(2):
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        async with httpx.AsyncClient(timeout=90) as client:  # a connection that no worker has accepted yet
            assert (await client.get(server.url + "/livez")).status_code == 200
        assert server.workers() != [worker]
    assert server.log().count('"worker_died"') == 2
    assert '"level":"error"' in server.log()
    assert await server.stop() == 0


async def test_the_other_worker_goes_on(servers: Servers, dsn: str) -> None:
    server = await servers.start(dsn=dsn, env={"LOGPOST_WORKERS": "2"})
    dead, alive = server.workers()
    os.kill(dead, signal.SIGKILL)
    for _ in range(20):
        async with httpx.AsyncClient(timeout=90) as client:
            assert (await client.get(server.url + "/readyz")).status_code == 200
    await wait_until(lambda: len(server.workers()) == 2 and dead not in server.workers())
    assert alive in server.workers()


async def test_a_dead_postgres_is_replaced_under_the_same_workers(servers: Servers, tmp_path: Path) -> None:
    server = await servers.start()
    workers = server.workers()
    connection = await asyncpg.connect(dsn_in(tmp_path / "data"))
    await connection.execute("create table kept as select 7 as n")
    connection.terminate()
    statuses: set[int] = set()
    async with httpx.AsyncClient(timeout=90) as client:
        for times in (1, 2):
            dead = server.postmaster()

            async def back(times: int = times) -> bool:
                answer = await client.get(server.url + "/readyz")
                statuses.add(answer.status_code)
                assert answer.status_code == 200 or answer.headers["retry-after"]
                return answer.status_code == 200 and server.log().count("embedded_postgres_restarted") == times

            os.kill(dead, signal.SIGKILL)
            await wait_until(back)
            assert server.postmaster() != dead
    assert statuses == {200, 503}
    assert server.workers() == workers
    connection = await asyncpg.connect(dsn_in(tmp_path / "data"))
    assert await connection.fetchval("select n from kept") == 7
    connection.terminate()
    assert await server.stop() == 0


async def test_a_dead_supervisor_takes_the_tree_along_and_the_next_one_starts_at_once(
    servers: Servers, tmp_path: Path
) -> None:
    server = await servers.start(env={"LOGPOST_WORKERS": "2"})
    connection = await asyncpg.connect(dsn_in(tmp_path / "data"))
    await connection.execute("create table kept as select 7 as n")
    connection.terminate()
    tree = server.tree()
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait()
    again = await servers.start(env={"LOGPOST_PORT": str(server.port)})  # the port is free as well
    assert not alive(tree)
    connection = await asyncpg.connect(dsn_in(tmp_path / "data"))
    assert await connection.fetchval("select n from kept") == 7
    connection.terminate()
    assert await again.stop() == 0


async def test_a_tree_killed_at_once_leaves_a_usable_data_directory(servers: Servers, tmp_path: Path) -> None:
    server = await servers.start()
    connection = await asyncpg.connect(dsn_in(tmp_path / "data"))
    await connection.execute("create table kept as select 7 as n")
    server.kill_tree()
    connection.terminate()
    await servers.start()
    connection = await asyncpg.connect(dsn_in(tmp_path / "data"))
    assert await connection.fetchval("select n from kept") == 7
    connection.terminate()


ORPHAN = """
import asyncio, os, signal, sys
from pathlib import Path
from app import telemetry
from app.storage import cluster
from app.storage.embedded import EmbeddedPostgres
telemetry.configure()
cluster.end_with_parent = lambda: None
async def main():
    postgres = EmbeddedPostgres(Path(sys.argv[1]))
    await postgres.start()
    print(postgres.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_an_orphaned_postgres_is_ended_by_the_next_owner(servers: Servers, tmp_path: Path) -> None:
    """Where the system does not end children with their parent."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ORPHAN, str(tmp_path / "data"), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    orphan = int(output)
    assert alive([orphan])
    server = await servers.start()
    assert not alive([orphan])
    assert "embedded_postgres_orphan_ended" in server.log()


async def test_a_second_server_on_the_data_directory_is_refused_in_one_line(servers: Servers, tmp_path: Path) -> None:
    first = await servers.start()
    second = servers.spawn()
    assert await second.exit_code() == 1
    (line,) = second.log().splitlines()
    assert str(first.pid) in line
    assert str(tmp_path / "data") in line
    async with httpx.AsyncClient(timeout=90) as client:
        assert (await client.get(first.url + "/readyz")).status_code == 200
