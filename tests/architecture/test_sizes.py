"""Ratchets: files and functions stay small enough to be read in one go. These numbers only ever go down."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.servers import ROOT

MAX_FILE_LINES = 300
MAX_TEST_FILE_LINES = 400  # cases side by side are looked up, not read
MAX_FUNCTION_LINES = 70

FILES = sorted(path for folder in ("app", "bench", "migrations", "tests") for path in (ROOT / folder).rglob("*.py"))
STATEMENTS = sorted((ROOT / "migrations" / "functions").glob("*.sql"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*FILES, *STATEMENTS], ids=named)
def test_a_file_is_read_in_one_go(path: Path) -> None:
    product = path.relative_to(ROOT).parts[0] in ("app", "migrations")
    assert len(path.read_text().splitlines()) <= (MAX_FILE_LINES if product else MAX_TEST_FILE_LINES)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_function_is_seen_at_a_glance(path: Path) -> None:
    long = [
        f"{node.name}: {lines} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []
