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
from app.settings import Settings, variable
from app.storage.cluster import EmbeddedPostgresFailed
from app.storage.embedded import DataDirInUse
from app.storage.migrate import DatabaseUnreachable
from app.telemetry import log


def run(settings: Settings) -> int:
    """Serves until told to stop; returns the exit code of the process."""
    telemetry.configure(settings.log_level)
    if settings.root_key and not settings.secret_keys:
        log.warning("secrets_not_encrypted", setting=variable("secret_keys"))
    try:
        return asyncio.run(Supervisor(settings).serve())
    except (CannotServe, DataDirInUse, EmbeddedPostgresFailed, DatabaseUnreachable) as error:
        sys.stderr.write(f"{error}\n")
        return 1
