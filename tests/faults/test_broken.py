"""The faults run is worth something only if it catches a server that is broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.faults.broken import BROKEN, Change
from tests.servers import ROOT


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_to_be_spoiled_is_there_to_be_spoiled(name: str) -> None:
    for change in BROKEN[name].changes:
        if isinstance(change, Change):
            assert change.new in change.statement()


@pytest.mark.timeout(280)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_build_is_caught_by_an_invariant_named_for_it(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.faults", "--seed", "3", "--minutes", "0.25", "--rate", "300"]
    command += ["--broken", name, "--out", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as running:
        try:
            output, _ = running.communicate(timeout=260)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            raise
    assert running.returncode == 0, output[-6000:]
