"""Expressions: CEL over a message, compiled once and evaluated many times. Nothing else knows the library.

What an expression sees:

    message   the payload, decoded; null when it is not JSON
    key       the message's key, "" when it has none
    headers   a map of strings
    meta      a map: ``topic`` and ``correlationId`` (strings, the latter may be null), ``contentType`` (null for plain
              JSON), and in filters also ``partition``, ``offset`` (numbers) and ``publishedAt``
              (a string: ``timestamp(meta.publishedAt)`` compares)

The language is CEL without its comprehension macros, whose cost grows with the message, and without extensions:
https://github.com/google/cel-spec/blob/master/doc/langdef.md. Regular expressions are RE2's, linear in their input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

from cel_expr_python import cel  # type: ignore[import-untyped]

from app.domain.errors import Fault, InvalidExpression
from app.domain.message import holds_json
from app.domain.payload import decode

MAX_LENGTH = 1000

Kind = Literal["filter", "rule", "partitionKey"]

_WANTED = {"filter": cel.Type.BOOL, "rule": cel.Type.BOOL, "partitionKey": cel.Type.STRING}
_WORDS = {"filter": "true or false", "rule": "true or false", "partitionKey": "a string"}
# Macros turned off look like calls of functions nobody declared.
_MACROS = ("all", "exists", "exists_one", "map", "filter")
_CONFIG = f"""
name: logpost
stdlib:
  exclude_macros: [{", ".join(_MACROS)}]
"""
_ENVIRONMENT = cel.NewEnv(
    config=cel.NewEnvConfigFromYaml(_CONFIG),
    variables={
        "message": cel.Type.DYN,
        "key": cel.Type.STRING,
        "headers": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
        "meta": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    },
)
# A trial finds what type checking cannot: a constant that is no regular expression or no timestamp, a division by
# zero. What an empty message lacks, or a string that is no number, is not held against an expression.
_TRIALS = [
    _ENVIRONMENT.Activation({
        "message": {}, "key": text, "headers": {},
        "meta": {"topic": text, "correlationId": text, "contentType": text, "partition": 0, "offset": 1,
                 "publishedAt": "1970-01-01T00:00:00Z"},
    })
    for text in ("", "1", "1s", "1970-01-01T00:00:00Z")
]  # fmt: skip
_EXCUSED = ("NOT_FOUND:", "UNKNOWN:")

_PLACE = re.compile(r"ERROR: <input>:(?P<line>\d+):(?P<column>\d+): (?P<reason>[^\n]*)")


def seen(payload: bytes, content_type: str | None) -> Any:
    """A payload as expressions see it: decoded, null if it is not JSON.

    NUL is replaced, in the rare text that has it: the library's strings end there, and ``a`` would equal ``a\\0b``.
    """
    if not holds_json(content_type):
        return None
    value = decode(payload)
    return _without_nul(value) if b"\\u0000" in payload else value


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [_without_nul(each) for each in value]
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(each) for name, each in value.items()}
    return value


class Verdict(Enum):
    """What an expression says of a message. ERROR: it could not be evaluated, say because a field is missing."""

    MATCH = "match"
    NO_MATCH = "no match"
    ERROR = "error"


class Context:
    """One message as expressions see it: prepared once, shared by all that look at it. ``message`` is from ``seen``."""

    __slots__ = ("activation",)

    def __init__(self, message: Any, key: str | None, headers: Mapping[str, str], meta: Mapping[str, Any]) -> None:
        self.activation = _ENVIRONMENT.Activation({
            "message": message, "key": key or "", "headers": headers, "meta": meta,
        })  # fmt: skip


class Expression:
    """A compiled expression. Made by ``compile_expression``."""

    def __init__(self, text: str, kind: Kind, program: cel.Expression) -> None:
        self.text = text
        self.kind = kind
        self._program = program

    def judge(self, context: Context) -> Verdict:
        """For filters and rules."""
        result = self._program.eval(context.activation)
        if result.type() != cel.Type.BOOL:
            return Verdict.ERROR
        return Verdict.MATCH if result.value() else Verdict.NO_MATCH

    def string(self, context: Context) -> str | None:
        """For partition keys. None: it could not be evaluated, or to no string."""
        result = self._program.eval(context.activation)
        return result.value() if result.type() == cel.Type.STRING else None


def compile_expression(text: str, kind: Kind, field: str) -> Expression:
    """Raises InvalidExpression with line and column (from 1) of each fault; ``field`` is where the text was given."""
    if len(text) > MAX_LENGTH:
        raise _invalid(field, [f"has {len(text)} characters, {MAX_LENGTH} are allowed"])
    try:
        program = _ENVIRONMENT.compile(text)
    except TypeError:
        raise _invalid(field, ["is not valid Unicode text"]) from None
    except RuntimeError as error:
        raise _syntax(field, str(error)) from None
    returned = program.return_type()
    if returned not in (_WANTED[kind], cel.Type.DYN):
        raise _invalid(field, [f"must give {_WORDS[kind]}, and gives {returned.name().lower()}"])
    errors = [_error_of(program.eval(trial)) for trial in _TRIALS]
    if all(errors):
        raise _invalid(field, [f"fails for every message: {_plain(errors[0] or '')}"])
    return Expression(text, kind, program)


def _error_of(outcome: Any) -> str | None:
    """Why a trial failed; None if it did not, or for want of something that real messages may have."""
    if outcome.type() != cel.Type.ERROR:
        return None
    reason = str(outcome.value())
    return None if reason.startswith(_EXCUSED) else reason


def _syntax(field: str, report: str) -> InvalidExpression:
    places = [(int(match["line"]), int(match["column"]), match["reason"]) for match in _PLACE.finditer(report)]
    if not places:
        return _invalid(field, [_plain(report)])
    for line, column, reason in places:
        for macro in _MACROS:
            if f"undeclared reference to '{macro}'" in reason:
                # The others complain of its variable.
                places = [(line, column, f"the macro '{macro}' is not available here")]
    line, column, _ = places[0]
    reasons = [f"line {line}, column {column}: {_plain(reason)}" for line, column, reason in places]
    return _invalid(field, reasons, line=line, column=column)


def _invalid(field: str, reasons: list[str], *, line: int = 1, column: int = 1) -> InvalidExpression:
    faults = [Fault(reason, field) for reason in reasons]
    return InvalidExpression(f"{field}: {'; '.join(reasons)}.", faults, extra={"line": line, "column": column})


def _plain(reason: str) -> str:
    """Without the library's status names and the noise around them."""
    reason = re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$| \(in container ''\)", "", reason.strip())
    return reason if len(reason) <= 300 else reason[:300] + "…"
