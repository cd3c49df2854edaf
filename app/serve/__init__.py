"""One ``logpost serve``: a supervisor that serves nothing itself.

    supervisor ─┬─ postgres     unless LOGPOST_DATABASE_URL; first to start, last to stop
                ├─ worker       on the supervisor's listening sockets
                └─ worker …

It owns the listening sockets, so that clients wait instead of being refused while a worker is started again, and it
starts again whatever of its children dies. A kill of the supervisor takes the children with it.
"""

from __future__ import annotations

import asyncio
import sys

from app import telemetry
from app.serve.address import CannotServe
from app.serve.supervisor import Supervisor
from app.settings import Settings
from app.storage.cluster import EmbeddedPostgresFailed
from app.storage.embedded import DataDirInUse
from app.storage.migrate import DatabaseUnreachable


def run(settings: Settings) -> int:
    """Serves until told to stop; returns the exit code of the process."""
    telemetry.configure(settings.log_level)
    try:
        return asyncio.run(Supervisor(settings).serve())
    except (CannotServe, DataDirInUse, EmbeddedPostgresFailed, DatabaseUnreachable) as error:
        sys.stderr.write(f"{error}\n")
        return 1
