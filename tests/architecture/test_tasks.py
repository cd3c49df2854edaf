"""A task that nobody owns is lost when it fails and forgotten when the process stops."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.test_sizes import FILES, named
from tests.servers import ROOT

STARTERS = {"create_task", "ensure_future"}
OWNER = "app/loops/supervisor.py"
# The processes around the application, which wait for their own tasks before they end.
PROCESSES = ("app/worker.py", "app/serve/", "app/cli/")

INSIDE = [path for path in FILES if named(path).startswith("app/") and not named(path).startswith(PROCESSES)]


def starts(path: Path) -> list[int]:
    """Lines that start a task of their own. A task group waits for its tasks, so that it may have them."""
    groups = {"group", "tasks"}
    return [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in STARTERS
        and not (isinstance(node.value, ast.Name) and node.value.id in groups)
    ]


@pytest.mark.parametrize("path", INSIDE, ids=named)
def test_tasks_start_in_the_supervisor_only(path: Path) -> None:
    assert bool(starts(path)) == (named(path) == OWNER)


def test_the_owner_is_among_the_files() -> None:
    assert ROOT / OWNER in INSIDE
