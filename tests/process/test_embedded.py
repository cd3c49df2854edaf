"""The embedded Postgres by itself: whoever runs it, whatever happened before."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from app.storage.cluster import EmbeddedPostgresFailed
from app.storage.embedded import DataDirInUse, EmbeddedPostgres
from tests.servers import ROOT, clean_environment


@asynccontextmanager
async def started(data_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(data_dir)
    try:
        await postgres.start()
        yield postgres
    finally:
        await postgres.stop()


async def value(postgres: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(postgres.dsn)
    try:
        found: object = await connection.fetchval(statement)
        return found
    finally:
        await connection.close()


async def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    async with started(tmp_path / "data") as postgres:
        await value(postgres, "create table kept (n int)")
        await value(postgres, "insert into kept values (7)")
        assert postgres.pid is not None
        os.kill(postgres.pid, signal.SIGKILL)
        await postgres.wait()
        await postgres.start()
        assert await value(postgres, "select n from kept") == 7


async def test_a_commit_is_on_disk(tmp_path: Path) -> None:
    """And neither a configuration file nor ALTER SYSTEM can make it otherwise."""
    async with started(tmp_path / "data") as postgres:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            await value(postgres, f"alter system set {name} = off")
    async with started(tmp_path / "data") as postgres:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await value(postgres, f"show {name}") == "on"


async def test_nobody_gets_in_by_network_or_without_the_password(tmp_path: Path) -> None:
    async with started(tmp_path / "data") as postgres:
        assert postgres.pid is not None
        assert not psutil.Process(postgres.pid).net_connections("tcp")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.dsn, password="guessed")


async def test_two_owners_in_one_process_tree_are_one_too_many(tmp_path: Path) -> None:
    async with started(tmp_path / "data"):
        with pytest.raises(DataDirInUse, match=f"process {os.getpid()}"):
            await EmbeddedPostgres(tmp_path / "data").start()
    async with started(tmp_path / "data"):
        pass


async def test_a_start_that_was_interrupted_is_begun_again(tmp_path: Path) -> None:
    unfinished = tmp_path / "data/postgres.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    async with started(tmp_path / "data") as postgres:
        assert await value(postgres, "select 1") == 1
    assert not unfinished.exists()


async def test_a_cancelled_start_leaves_no_process_and_can_be_repeated(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data")
    starting = asyncio.create_task(postgres.start())
    await asyncio.sleep(0.3)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await postgres.stop()
    places = [process.info["cwd"] or "" for process in psutil.process_iter(["cwd"])]
    assert not [place for place in places if place.startswith(str(tmp_path))]
    async with started(tmp_path / "data"):
        pass


async def test_the_cluster_of_another_version_is_left_alone(tmp_path: Path) -> None:
    async with started(tmp_path / "data"):
        pass
    (tmp_path / "data/postgres/PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedPostgresFailed, match="17"):
        async with started(tmp_path / "data"):
            pass


async def test_a_pid_file_whose_number_is_taken_by_another_program_does_no_harm(tmp_path: Path) -> None:
    """Usual in containers, where the numbers start anew."""
    async with started(tmp_path / "data"):
        pass
    pid_file = tmp_path / "data/postgres/postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{tmp_path}\n0\n5432\n{tmp_path}\n")
    async with started(tmp_path / "data") as postgres:
        assert await value(postgres, "select 1") == 1


async def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    async with started(tmp_path / ("long" * 30) / "data") as postgres:
        assert await value(postgres, "select 1") == 1
        socket_dir = postgres._socket_dir
    assert socket_dir is not None
    assert not socket_dir.exists()


UNPRIVILEGED = """
import asyncio, os, sys
from pathlib import Path
from app import telemetry
from app.storage import cluster
from app.storage.embedded import EmbeddedPostgres
telemetry.configure()
async def main():
    await asyncio.to_thread(int)  # what Python imports late, it cannot after this
    if os.geteuid() == 0:
        # The files of the project may be closed to it: what root would run for it is not.
        account = cluster.account_for(Path("/nowhere"))
        programs = cluster.programs(account)
        cluster.programs = lambda _: programs
        os.setgroups([]); os.setgid(account.gid); os.setuid(account.uid)
    postgres = EmbeddedPostgres(Path(sys.argv[1]))
    await postgres.start()
    await postgres.stop()
asyncio.run(main())
"""


def test_an_unprivileged_account_runs_it_as_itself() -> None:
    directory = Path(tempfile.mkdtemp(prefix="logpost-test-"))
    try:
        if os.geteuid() == 0:
            os.chown(directory, pwd.getpwnam("nobody").pw_uid, -1)
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(directory / "data")], cwd=ROOT,
            env=clean_environment({}), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (directory / "data/postgres").stat().st_uid == directory.stat().st_uid
    finally:
        shutil.rmtree(directory)
