"""The sessions of README.md, run as they are printed there: with curl, and with the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import ROOT, Server, Servers, clean_environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
EVENTS = (ROOT / "examples" / "events.ndjson").read_text(encoding="utf-8").splitlines()


def session(title: str) -> str:
    """The shell blocks of a section, one after the other."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    return "".join(re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE))


def run(script: str, server: Server, tools: Path) -> list[Any]:
    """The answers the script prints, a line each. Only the server's address differs from what is printed."""
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-eu"], input=script.replace("http://127.0.0.1:8080", server.url), cwd=ROOT, check=False,
        env=clean_environment({"LOGPOST_URL": server.url, "PATH": path}), capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def install_curl(tools: Path, kind: str) -> None:
    """curl itself where the machine has it; else, and always once, our own few lines."""
    real = shutil.which("curl") if kind == "real" else None
    stand_in = f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/tests/cli/curl.py" "$@"\n'
    curl = tools / "curl"
    curl.write_text(f'#!/bin/sh\nexec "{real}" "$@"\n' if real else stand_in)
    curl.chmod(0o755)


@pytest.mark.parametrize("curl", ["real", "stand-in"])
async def test_the_sessions_of_the_readme_work_when_pasted(
    servers: Servers, dsn: str, tmp_path: Path, curl: str
) -> None:
    install_curl(tmp_path, curl)
    server = await servers.start(dsn=dsn)

    topic, group, first, second, pulled, acked, lag = run(session("A session with curl"), server, tmp_path)
    assert (topic["name"], topic["distribution"]["partitions"]) == ("orders", 4)
    assert (group["name"], group["startFrom"]) == ("billing", "earliest")
    assert (first["offset"], first["duplicate"]) == (1, False)
    assert second == {**first, "duplicate": True}
    (message,) = pulled["messages"]
    assert (message["id"], message["key"], message["message"]["type"]) == (first["id"], "ord_1", "order.created")
    assert acked["results"] == [{"ackId": message["ackId"], "status": "ok"}]
    assert lag["lag"] == 0

    published, before, *rest = run(session("The same from a shell"), server, tmp_path)
    assert (published["published"], published["duplicates"]) == (len(EVENTS), 0)
    assert before["lag"] == len(EVENTS)
    messages, (after, _moved, *again, stats) = rest[: len(EVENTS)], rest[len(EVENTS) :]
    expected = sorted((json.loads(line) for line in EVENTS), key=lambda event: str(event["orderId"]))
    # Sorting is stable: within an order the events stay as they were published, and as they were delivered.
    assert sorted((each["message"] for each in messages), key=lambda event: str(event["orderId"])) == expected
    assert all(each["key"] == each["message"]["orderId"] for each in messages)
    assert after["lag"] == 0
    assert len(again) == 3
    assert (stats["lag"], stats["inFlight"]) == (len(EVENTS) + 1, 3)
