"""What makes a test build of the server: Python imports this before anything else where its directory is on the path.

A failpoint (app/failpoints.py) acts when there is a file of its name in the directory FAULTS_POINTS, once: the file
says for how many seconds the process is to stand still, and 0 is its end. Whoever comes by first takes the file away,
and leaves one with a suffix that says when.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from app import failpoints

FOLDER = os.environ.get("FAULTS_POINTS", "")


def act(name: str) -> None:
    armed = Path(FOLDER, name)
    taken = Path(FOLDER, f"{name}.{os.getpid()}.taken")
    try:
        armed.rename(taken)
    except FileNotFoundError:
        return
    seconds = float(taken.read_text())
    taken.write_text(str(time.monotonic_ns()))
    taken.rename(f"{armed}.hit")
    if seconds == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)


if FOLDER:
    failpoints.arm(act)
