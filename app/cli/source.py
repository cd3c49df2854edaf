"""Where what is published comes from (an argument, a file, stdin), and how far its reading is."""

from __future__ import annotations

import io
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from app.cli.batch import Batch
from app.cli.options import Failed

CHUNK = 1024 * 1024


@contextmanager
def opened(message: str | None, file: str | None) -> Iterator[BinaryIO]:
    """``message`` itself, else the file, else stdin; ``-`` is stdin for either."""
    if message not in (None, "-"):
        yield io.BytesIO(str(message).encode())
    elif file in (None, "-"):
        if sys.stdin.isatty():
            click.echo("Reading from the terminal; end with Ctrl-D.", err=True)
        yield sys.stdin.buffer
    else:
        try:
            source = Path(str(file)).open("rb")  # noqa: SIM115 - closed below; only opening may fail like this
        except OSError as error:
            raise Failed(f"{file}: {error.strerror}") from error
        with source:
            yield source


def lines_of(source: BinaryIO) -> Iterator[bytes | None]:
    """Every line; None where the next one has not been written yet, so that nothing waits for a slow writer."""
    try:
        number = source.fileno()
    except OSError:  # not a file of the operating system: it is all there
        yield from source
        return
    rest = b""
    while True:
        if not select.select([number], [], [], 0)[0]:
            yield None
        chunk = os.read(number, CHUNK)
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


@contextmanager
def progress(source: BinaryIO) -> Iterator[Callable[[Batch], None]]:
    """A bar on stderr where that is a terminal: by bytes of a file, else without an end."""
    if not sys.stderr.isatty():
        yield lambda _batch: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    name = getattr(source, "name", None)
    size = Path(name).stat().st_size if isinstance(name, str) and Path(name).is_file() else None
    columns = (BarColumn(), TextColumn("{task.fields[messages]} messages, {task.fields[rate]}/s"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=size, messages=0, rate=0)
        started = time.monotonic()
        messages = 0

        def advance(batch: Batch) -> None:
            nonlocal messages
            messages += len(batch.lines)
            rate = round(messages / max(time.monotonic() - started, 1e-6))
            bar.update(task, advance=batch.size, messages=messages, rate=rate)

        yield advance
