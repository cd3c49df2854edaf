"""Commands to run and watch that are not a plain ``python -m app serve``."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.servers import PATIENCE_S, ROOT, clean_environment


def alive(pids: Sequence[int]) -> list[int]:
    """Those that still run. One that init has not buried yet does not."""
    running = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
    return running


class Launched:
    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process = process
        self.errors = errors

    async def line(self) -> str:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(self.process.stdout.readline)

    async def exit_code(self) -> int:
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)


@contextmanager
def launched(
    command: Sequence[str | Path], directory: Path, env: Mapping[str, str], *, cwd: Path = ROOT, **options: Any
) -> Iterator[Launched]:
    """``command``, with its errors in a file in ``directory``; killed at the end if it still runs."""
    errors = directory / "launched.log"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=cwd, env=clean_environment(env), stdout=subprocess.PIPE, stderr=stderr, text=True, **options
        )
    with process:
        try:
            yield Launched(process, errors)
        finally:
            process.kill()
