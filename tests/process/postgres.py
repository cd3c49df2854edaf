"""A way into the embedded Postgres of a running server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote


def dsn_in(data_dir: Path) -> str:
    """For asyncpg. Postgres tells where its socket is in the fifth line of its pid file."""
    cluster = data_dir / "postgres"
    socket_dir = (cluster / "postmaster.pid").read_text().splitlines()[4]
    password = (cluster / "logpost.password").read_text()
    return f"postgresql://logpost:{password}@/logpost?host={quote(socket_dir)}"
