"""What the client prints: tables for a person at a terminal, JSON lines for everybody else.

rich is imported where a table is drawn. What came from a server or a publisher never drives the terminal: control
characters are shown as their escapes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

import click
import msgspec

# Every C0 and C1 control, DEL and the Unicode line ends.
ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}

Columns = Sequence[tuple[str, str]]


def note(text: str) -> None:
    """What a person should know beside the output."""
    click.echo(f"logpost: {text}", err=True)


class Output:
    """stdout of one command. ``documents`` are the bodies the server answered, as bytes."""

    def __init__(self, *, as_json: bool = False, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.tables = not as_json and self.stream.isatty()

    def line(self, document: bytes) -> None:
        """The JSON document on one line, its values spelled as they came."""
        # Within JSON a line end can only be white space between tokens.
        text = document.replace(b"\r", b" ").replace(b"\n", b" ").decode()
        if self.stream.isatty():
            text = text.translate(ESCAPED)
        self.stream.write(text + "\n")

    def rows(self, documents: Iterable[bytes], columns: Columns) -> None:
        """A list: a line each, or a table of ``columns`` (title, dotted path in the document)."""
        if not self.tables:
            for document in documents:
                self.line(document)
            self.stream.flush()
            return
        self._table([msgspec.json.decode(document) for document in documents], columns)

    def document(self, document: bytes) -> None:
        """One thing: a line, or its fields below each other and its lists as tables."""
        if not self.tables:
            self.line(document)
            self.stream.flush()
            return
        content = msgspec.json.decode(document)
        fields = list(_flat(content))
        self._fields([(name, value) for name, value in fields if not _is_list_of_objects(value)])
        for name, value in fields:
            if _is_list_of_objects(value):
                self.stream.write(f"\n{name}\n")
                self._table(value, [(title, title) for title in _titles(value)])

    def done(self, sentence: str, document: bytes = b"") -> None:
        """A change: its sentence at a terminal, else the server's answer where it gave one."""
        if self.tables:
            self.stream.write(sentence.translate(ESCAPED) + "\n")
            self.stream.flush()
        elif document.strip():
            self.document(document)

    def _table(self, documents: Sequence[Any], columns: Columns) -> None:
        from rich.table import Table  # noqa: PLC0415 - a tenth of a second that only tables have to pay
        from rich.text import Text  # noqa: PLC0415

        if not documents:
            self.stream.write("(none)\n")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title, _ in columns:
            table.add_column(title, overflow="fold")
        for document in documents:
            table.add_row(*(Text(shown(_at(document, name))) for _, name in columns))
        self._draw(table)

    def _fields(self, fields: Sequence[tuple[str, Any]]) -> None:
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in fields:
            table.add_row(Text(shown(name)), Text(shown(value)))
        self._draw(table)

    def _draw(self, table: Any) -> None:
        from rich.console import Console  # noqa: PLC0415

        Console(file=self.stream, highlight=False).print(table)


def shown(value: Any) -> str:
    """A value in a cell: text as it is, the rest as JSON, nothing for null; no control characters."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.translate(ESCAPED)


def _flat(document: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` → ``a.b``, 1. A message stays in one piece."""
    for name, value in document.items():
        if isinstance(value, dict) and value and name not in ("message", "headers", "schema"):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _titles(documents: Sequence[dict[str, Any]]) -> list[str]:
    """The names in the order of appearance. To fit a terminal, what is 0 or empty everywhere is left out, as are long
    lists inside; ``--json`` has all of it."""
    names: dict[str, bool] = {}
    for document in documents:
        for name, value in _flat(document):
            if not _is_list_of_objects(value):
                names[name] = names.get(name, not names) or bool(value)
    return [name for name, telling in names.items() if telling]


def _at(document: Any, name: str) -> Any:
    """The value at a dotted path; what is on the way may itself be missing or null."""
    if isinstance(document, dict) and name in document:
        return document[name]
    first, _, rest = name.partition(".")
    if not rest or not isinstance(document, dict):
        return None
    return _at(document.get(first), rest)
