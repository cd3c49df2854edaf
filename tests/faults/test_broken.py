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


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_build_is_caught_by_an_invariant_named_for_it(name: str, tmp_path: Path) -> None:
    # What shows it is up to chance, and a slow machine meets fewer chances; four seeds that show nothing are none.
    told = None
    for seed in (3, 4, 5, 6):
        told = run(name, seed, tmp_path / str(seed), timeout_s=360)
        if told is None:
            break
    assert told is None, told


def run(name: str, seed: int, out: Path, *, timeout_s: float) -> str | None:
    """What it said where it caught nothing."""
    command = [sys.executable, "-m", "bench.faults", "--seed", str(seed), "--minutes", "0.25", "--rate", "300"]
    command += ["--broken", name, "--out", str(out)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as running:
        try:
            output, _ = running.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            raise
    return None if running.returncode == 0 else output[-3000:]
