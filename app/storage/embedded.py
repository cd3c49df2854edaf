"""The embedded Postgres: a real server on the data directory, our child, reachable through a private socket only.

    <data_dir>/lock            held (flock) by the one process that owns the directory
    <data_dir>/postgres/       the cluster; ``postgres.new`` while initdb is at work
    <data_dir>/postgres.log    what the server says
    <data_dir>/run/            its socket, or a directory under /tmp if that path is too long or out of reach

The owner of the lock is the only one who starts, stops or removes anything here. A Postgres whose owner was killed
shuts itself down (Linux) or is ended by the next owner; after a kill of Postgres itself, its own recovery replays
everything that was committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil

from app.storage import cluster as clusters
from app.storage.cluster import DATABASE, ENVIRONMENT, MAJOR, PASSWORD_FILE, ROLE, Account, EmbeddedPostgresFailed
from app.telemetry import log

# sun_path holds 104 bytes on macOS and 108 on Linux, and Postgres appends "/.s.PGSQL.5432.lock".
MAX_SOCKET_DIR_BYTES = 83
MAX_LOG_BYTES = 8 * 1024 * 1024
POLL_S = 0.02

# Given on the command line, where neither postgresql.conf nor ALTER SYSTEM can change them. Sized for a small
# machine (2 cores, 1 GB or more); LOGPOST_DATABASE_URL is the way to a tuned server.
PARAMETERS = {
    "listen_addresses": "",  # the socket only: nothing to guess a port of
    "unix_socket_permissions": "0700",
    "max_connections": "200",  # some workers with a pool each, and room for people
    "shared_buffers": "256MB",  # the hot end of the log and every small table; the rest is the page cache's
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",  # a 2xx means on disk
    "max_wal_size": "128MB",  # what is to be gone through after a crash: a second or two; more publishes no faster
    "checkpoint_warning": "0",  # it is meant
    "checkpoint_timeout": "15min",
    "wal_compression": "off",  # this build has pglz only, which costs more than the bytes it saves
    "jit": "off",  # every hot statement is short
    "max_parallel_workers_per_gather": "0",  # touches one partition each; also spares /dev/shm, 64 MB in Docker
    "autovacuum_naptime": "10s",  # leases and cursors are small and rewritten many times a second
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_min_messages": "log",  # a refused statement is answered, not logged: the file must not grow with requests
    "cluster_name": "logpost",
}
# One call instead of a flush of the disk for each of a thousand files, where it reports what could not be written:
# https://www.postgresql.org/docs/current/runtime-config-error-handling.html#GUC-RECOVERY-INIT-SYNC-METHOD
if sys.platform == "linux" and tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (5, 8):
    PARAMETERS["recovery_init_sync_method"] = "syncfs"
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class DataDirInUse(Exception):
    """Another process owns the data directory. The text is one line for a person."""


class EmbeddedPostgres:
    """One cluster and, between ``start`` and ``stop``, its server.

    ``durable=False`` (tests only) gives up fsync. Not safe for use by two tasks at once.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self.data_dir = Path(os.path.abspath(data_dir))
        self.cluster = self.data_dir / "postgres"
        self._parameters = PARAMETERS if durable else PARAMETERS | NOT_DURABLE
        self._durable = durable
        self._lock: int | None = None
        self._socket_dir: Path | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def dsn(self) -> str:
        """For asyncpg (and psql). Stays the same over restarts until ``stop``."""
        assert self._socket_dir is not None, "start() first"
        password = (self.cluster / PASSWORD_FILE).read_text()
        return f"postgresql://{ROLE}:{password}@/{DATABASE}?host={quote(str(self._socket_dir))}"

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, while one runs that we started."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    async def start(self) -> None:
        """Returns when the server takes connections: also again after the server has died.

        Makes the cluster if there is none. Recovery after a crash may take long and has no time limit; cancelling
        the call is safe, and ``stop`` is then due. Raises DataDirInUse, EmbeddedPostgresFailed.
        """
        self.claim()
        await self._end_leftovers()
        account = clusters.account_for(self.cluster)
        try:
            self._socket_dir = self._socket_dir or self._make_socket_dir(account)
            bin_dir = await asyncio.to_thread(clusters.programs, account)
            if not self.cluster.exists():
                log.info("embedded_postgres_created", data_dir=str(self.data_dir))
                await clusters.create(self.cluster, self._socket_dir, bin_dir, account, durable=self._durable)
            self._check_cluster(account)
            await self._launch(bin_dir, account)
        except OSError as error:
            raise EmbeddedPostgresFailed(f"The embedded Postgres cannot be started: {error}") from error
        await self._until_it_answers()

    async def wait(self) -> int:
        """Returns the exit code of the server when it has ended, for whatever reason."""
        assert self._process is not None, "start() first"
        return await self._process.wait()

    async def stop(self) -> None:
        """A fast, clean shutdown (SIGINT), without time limit; then the data directory is free for others."""
        if self.pid is not None:
            self._signal(signal.SIGINT)
            await self.wait()
        if self._socket_dir is not None and self._socket_dir.parent != self.data_dir:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        self._socket_dir = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def abort(self) -> None:
        """Makes a ``stop`` under way immediate (SIGQUIT): nothing committed is lost, the next start recovers."""
        self._signal(signal.SIGQUIT)

    def claim(self) -> None:
        """Takes the data directory for this process, or raises DataDirInUse. Does nothing if it is ours already."""
        if self._lock is not None:
            return
        try:
            # Others may pass, for the account of Postgres has to; what is inside is closed to them.
            self.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
            lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedPostgresFailed(f"The data directory cannot be used: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode(errors="replace").strip()
            os.close(lock)
            raise DataDirInUse(
                f"Another Logpost (process {owner or 'unknown'}) is using the data directory {self.data_dir}; "
                "stop it, or choose another with LOGPOST_DATA_DIR."
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock

    def _make_socket_dir(self, account: Account | None) -> Path:
        """A directory for us and Postgres alone, where a socket's path fits and ``account`` can get to."""
        inside = self.data_dir / "run"
        if len(os.fsencode(inside)) <= MAX_SOCKET_DIR_BYTES and (account is None or clusters.open_to_everyone(inside)):
            inside.mkdir(mode=0o700, exist_ok=True)
            inside.chmod(0o700)
            found = inside
        else:
            place = Path(tempfile.gettempdir())
            if len(os.fsencode(place)) > MAX_SOCKET_DIR_BYTES - 20 or not clusters.open_to_everyone(place / "x"):
                place = Path("/tmp")  # TMPDIR itself may be long, or private
            found = Path(tempfile.mkdtemp(prefix="logpost-", dir=place))
        if account is not None:
            os.chown(found, account.uid, account.gid)
        return found

    def _check_cluster(self, account: Account | None) -> None:
        owner = self.cluster.stat().st_uid
        if account is None and owner != os.geteuid():
            raise EmbeddedPostgresFailed(
                f"{self.cluster} belongs to another account (uid {owner}): it was made by root or by another user. "
                "Run as that user, or choose another LOGPOST_DATA_DIR."
            )
        if account is not None and owner == 0:  # a backup that root has put back
            for folder, folders, files in os.walk(self.cluster):
                for name in (".", *folders, *files):
                    os.chown(Path(folder, name), account.uid, account.gid, follow_symlinks=False)
        version = (self.cluster / "PG_VERSION").read_text().strip()
        if version != MAJOR:
            raise EmbeddedPostgresFailed(
                f"{self.cluster} was made by Postgres {version}, and this is {MAJOR}: dump it with the old version."
            )

    async def _launch(self, bin_dir: Path, account: Account | None) -> None:
        path = self.data_dir / "postgres.log"
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        arguments = ["-D", clusters.name_for_postgres(self.cluster, account), "-k", str(self._socket_dir)]
        for name, value in self._parameters.items():
            arguments += ["-c", f"{name}={value}"]
        identity = account.as_popen() if account else {}
        output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                bin_dir / "postgres", *arguments, cwd=self.cluster, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, preexec_fn=clusters.end_with_parent,
                start_new_session=True,  # Ctrl-C in a terminal is for the supervisor, which stops us in order
                **identity,
            )  # fmt: skip
        finally:
            os.close(output)

    async def _until_it_answers(self) -> None:
        dsn = self.dsn
        while self.pid is not None:
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InternalClientError):
                connection = await asyncpg.connect(dsn, timeout=10)
                connection.terminate()
                return
            await asyncio.sleep(POLL_S)
        code = await self.wait()
        lines = (self.data_dir / "postgres.log").read_text(errors="replace").splitlines()[-5:]
        raise EmbeddedPostgresFailed(f"Postgres ended with code {code} while starting: {' / '.join(lines)}")

    async def _end_leftovers(self) -> None:
        """Ends what an earlier owner left running, so that one server at most ever touches the cluster."""
        file = self.cluster / "postmaster.pid"
        lines = file.read_text().splitlines() if file.exists() else []
        postmaster = int(lines[0]) if lines and lines[0].isdigit() else None
        signalled: set[int] = set()
        while running := {process.pid: process for process in self._processes_here()}:
            for pid, process in running.items():
                # The postmaster takes its children along; children without one are on their way out already.
                if pid not in signalled and (pid == postmaster or postmaster not in running):
                    log.warning("embedded_postgres_orphan_ended", pid=pid)
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGINT if pid == postmaster else signal.SIGTERM)
                    signalled.add(pid)
            await asyncio.sleep(POLL_S)
        if postmaster is not None and file.exists() and psutil.pid_exists(postmaster):
            file.unlink()  # the number is another program's by now (usual in containers): Postgres would give up
        sockets = Path(lines[4]) if len(lines) > 4 else None
        if sockets is not None and sockets != self._socket_dir and sockets.name.startswith("logpost-"):
            shutil.rmtree(sockets, ignore_errors=True)

    def _processes_here(self) -> Iterator[psutil.Process]:
        """Postgres and initdb processes at work in our cluster: both keep it as their working directory."""
        places = {os.path.realpath(self.cluster), os.path.realpath(self.cluster) + ".new"}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.name() in ("postgres", "initdb") and process.cwd().removesuffix(" (deleted)") in places:
                    yield process

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
