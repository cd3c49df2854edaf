"""Names say what a thing is: words that fit everything are used for nothing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.test_sizes import FILES, named
from tests.servers import ROOT

EMPTY_WORDS = {
    "base", "common", "handler", "handlers", "helper", "helpers", "manager", "managers", "misc", "repository",
    "service", "services", "util", "utils",
}  # fmt: skip


def words(name: str) -> set[str]:
    """``ConsumerGroup`` and ``consumer_group`` → consumer, group."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def classes(path: Path) -> list[str]:
    return [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_file_and_no_class_has_an_empty_word_for_a_name(path: Path) -> None:
    names = [*path.relative_to(ROOT).with_suffix("").parts, *classes(path)]
    assert [name for name in names if words(name) & EMPTY_WORDS] == []


@pytest.mark.parametrize("name", ["SettingsManager", "http_utils", "RequestHandler", "Base", "HTTPService"])
def test_an_empty_word_is_recognised_however_it_is_written(name: str) -> None:
    assert words(name) & EMPTY_WORDS
    assert not words("Database") & EMPTY_WORDS
