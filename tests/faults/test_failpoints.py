"""Failpoints: everywhere a commit begins or ends, and in no server that is not built for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app import failpoints
from app.settings import Settings, SettingsError
from bench.faults.cluster import BUILD
from bench.faults.inside import INSIDE
from tests.servers import ROOT

HIT = "from app import failpoints; failpoints.hit(failpoints.ACKING); print('alive')"


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIT], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
    )


def test_every_failpoint_stands_in_the_server_once_or_more() -> None:
    names = {name: value for name, value in vars(failpoints).items() if name.isupper() and isinstance(value, str)}
    code = "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    assert set(names.values()) == set(failpoints.ALL)
    assert not [name for name in names if f"hit(failpoints.{name})" not in code]


@pytest.mark.parametrize("name", INSIDE)
def test_the_steps_inside_a_function_are_there_to_be_parted(name: str) -> None:
    assert f"failpoint('{name}')" in INSIDE[name].statement()


def test_a_process_of_the_test_build_dies_where_it_is_told_to_and_once(tmp_path: Path) -> None:
    variables = {"PYTHONPATH": f"{BUILD}{os.pathsep}{ROOT}", "FAULTS_POINTS": str(tmp_path)}
    (tmp_path / failpoints.ACKING).write_text("0")

    first, second = run(**variables), run(**variables)

    assert first.returncode == -signal.SIGKILL
    assert "alive" in second.stdout
    assert [path.name for path in tmp_path.iterdir()] == [f"{failpoints.ACKING}.hit"]


def test_a_server_has_no_setting_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / failpoints.ACKING).write_text("0")
    assert "alive" in run(FAULTS_POINTS=str(tmp_path)).stdout
    for name in ("LOGPOST_FAILPOINTS", "LOGPOST_FAULTS_POINTS"):
        monkeypatch.setenv(name, str(tmp_path))
        with pytest.raises(SettingsError, match="there is no such setting"):
            Settings.load()
        monkeypatch.delenv(name)
