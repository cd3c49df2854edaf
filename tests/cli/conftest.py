"""``logpost``: the command line in this process, its output captured."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from app.cli import main

Logpost = Callable[..., Result]


@pytest.fixture
def logpost() -> Logpost:
    """``logpost("topics", "list", url=…, stdin=b"…")`` → exit code, stdout and stderr."""

    def run(*arguments: str, url: str | None = None, stdin: bytes | None = None, key: str | None = None) -> Result:
        environment = {"LOGPOST_URL": url, "LOGPOST_KEY": key}
        return CliRunner().invoke(main, arguments, input=stdin, env=environment, prog_name="logpost")

    return run
