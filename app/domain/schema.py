"""JSON Schema 2020-12 for the messages of a topic: compiled once, offline, bounded in what it may cost.

References lead nowhere outside the schema, patterns run on a linear engine (no lookaround, no backreferences), and a
schema whose references multiply, or lead back to themselves without going deeper into the message, is refused: such a
schema of a kilobyte can take seconds for each message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson

from app.domain.errors import Fault, InvalidSchema

MAX_BYTES = 64 * 1024
# How many subschemas may look at one message, references followed.
MAX_EXPANSION = 10_000
# How much is spent on finding out what a schema costs.
MAX_STEPS = 200_000
MAX_FAULTS = 20
MAX_REASON = 200

Schema = bool | dict[str, Any]

# Keywords by what they hold, and whether that looks at the same value or at a part of it.
_SAME_ONE = ("not", "if", "then", "else")
_SAME_MANY = ("allOf", "anyOf", "oneOf")
_SAME_NAMED = ("dependentSchemas",)
_PART_ONE = ("items", "additionalProperties", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties")
_PART_MANY = ("prefixItems",)
_PART_NAMED = ("properties", "patternProperties")


class MessageSchema:
    """A compiled schema. Made by ``compile_schema``."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator

    def faults(self, message: Any) -> list[Fault]:
        """What is wrong with a message, the first MAX_FAULTS of it: ``path`` is a JSON pointer into the message."""
        if self._validator.is_valid(message):
            return []
        return [
            Fault(_short(error.message), path=pointer(error.instance_path))
            for error in islice(self._validator.iter_errors(message), MAX_FAULTS)
        ]


def compile_schema(schema: Any, field: str) -> MessageSchema:
    """Raises InvalidSchema, which says where in ``field`` the schema is wrong, or that it would cost too much."""
    if not isinstance(schema, dict | bool):
        raise _invalid(field, "must be an object or a boolean")
    if (large := _too_large(schema)) is not None:
        raise _invalid(field, "has a number of more than 64 bits", large)
    try:
        size = len(orjson.dumps(schema))
    except TypeError:
        raise _invalid(field, "is nested too deeply, or holds what JSON cannot") from None
    if size > MAX_BYTES:
        raise _invalid(field, f"is larger than {MAX_BYTES // 1024} kB")
    try:
        # A value that is refused is not repeated in the answer: it may be long, or nobody's business.
        validator = jsonschema_rs.Draft202012Validator(
            schema, offline=True, pattern_options=jsonschema_rs.RegexOptions(), mask="the value"
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        path = getattr(error, "instance_path", [])
        raise _invalid(field, _short(getattr(error, "message", str(error))), pointer(path)) from None
    _Cost(schema, field).check()
    return MessageSchema(validator)


def pointer(path: list[str | int]) -> str:
    """A JSON pointer, RFC 6901: ``["a/b", 0]`` → ``/a~1b/0``; the whole document is ``""``."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _too_large(schema: Any) -> str | None:
    """Where the schema has a whole number that would come back from storage as one that cannot be compiled."""
    todo: list[tuple[str, Any]] = [("", schema)]
    while todo:
        where, part = todo.pop()
        if isinstance(part, dict):
            todo += [(f"{where}{pointer([key])}", value) for key, value in part.items()]
        elif isinstance(part, list):
            todo += [(f"{where}/{at}", value) for at, value in enumerate(part)]
        elif isinstance(part, int | float) and abs(part) >= 2**63 and part == part // 1:
            return where
    return None


class _Cost:
    """Counts what one value can set off: subschemas multiplied by the references that lead to them."""

    def __init__(self, root: Schema, field: str) -> None:
        self._root = root
        self._field = field
        self._anchors = dict(_anchors(root))
        self._same: dict[int, int] = {}
        self._busy: set[int] = set()
        self._steps = 0

    def check(self) -> None:
        todo: list[Any] = [self._root]
        seen: set[int] = set()
        while todo:
            schema = todo.pop()
            if not isinstance(schema, dict) or id(schema) in seen:
                continue
            seen.add(id(schema))
            if schema is not self._root and isinstance(schema.get("$id"), str):
                raise _invalid(self._field, "has an $id below its top")
            if self._looks(schema) > MAX_EXPANSION:
                raise _invalid(self._field, f"would look at a value more than {MAX_EXPANSION} times")
            recursive = self._returning(schema)
            if recursive:
                raise _invalid(self._field, f"'{recursive}' leads back into the schema more than once for one value")
            todo += [*_same(schema), *(part for _, part in _parts(schema)), *schema.get("$defs", {}).values()]

    def _looks(self, schema: Any) -> int:
        """How many subschemas look at the same value as ``schema`` does, itself included."""
        if not isinstance(schema, dict):
            return 1
        if id(schema) in self._same:
            return self._same[id(schema)]
        if id(schema) in self._busy:
            raise _invalid(self._field, "refers back to itself without going deeper into the message")
        self._busy.add(id(schema))
        looks = 1 + sum(self._looks(other) for other in [*_same(schema), *self._targets(schema)])
        self._busy.discard(id(schema))
        self._same[id(schema)] = min(looks, MAX_EXPANSION + 1)
        return self._same[id(schema)]

    def _returning(self, schema: dict[str, Any]) -> str | None:
        """A part of the value that is looked at twice by schemas which lead back to ``schema``.

        Each level of nesting would double the work then.
        """
        labels: dict[str, int] = {}
        for label, part in self._all_parts(schema):
            if self._leads_to(part, schema):
                labels[label] = labels.get(label, 0) + 1
        return next((label for label, count in labels.items() if count > 1), None)

    def _all_parts(self, schema: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(schema, dict):
            self._step()
            yield from _parts(schema)
            for other in [*_same(schema), *self._targets(schema)]:
                yield from self._all_parts(other)

    def _leads_to(self, start: Any, goal: dict[str, Any]) -> bool:
        todo, seen = [start], set()
        while todo:
            schema = todo.pop()
            if schema is goal:
                return True
            self._step()
            if isinstance(schema, dict) and id(schema) not in seen:
                seen.add(id(schema))
                todo += [*_same(schema), *self._targets(schema), *(part for _, part in _parts(schema))]
        return False

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _invalid(self._field, "is too entangled")

    def _targets(self, schema: dict[str, Any]) -> list[Any]:
        return [self._resolve(schema[word]) for word in ("$ref", "$dynamicRef") if isinstance(schema.get(word), str)]

    def _resolve(self, reference: str) -> Any:
        """Only ``#``, ``#/a/pointer`` and ``#anchor`` can be followed by eye; others are refused."""
        base, _, fragment = reference.partition("#")
        if base:
            raise _invalid(self._field, f"the reference {_short(reference)!r} must start with #")
        if fragment and not fragment.startswith("/"):
            return self._anchors.get(fragment, True)
        found: Any = self._root
        for part in fragment.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found.get(name, True)
        return found


def _anchors(schema: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(schema, dict):
        for word in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(word), str):
                yield schema[word], schema
        for inner in schema.values():
            yield from _anchors(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _anchors(inner)


def _same(schema: Mapping[str, Any]) -> list[Any]:
    """Subschemas of the same value."""
    found = [schema[word] for word in _SAME_ONE if word in schema]
    for word in _SAME_MANY:
        found += schema.get(word, [])
    for word in _SAME_NAMED:
        found += schema.get(word, {}).values()
    return found


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Subschemas of parts of the value, each with what tells apart parts that can be different ones."""
    for word in _PART_ONE:
        if word in schema:
            yield word, schema[word]
    for word in _PART_MANY:
        yield from ((f"{word}/{index}", part) for index, part in enumerate(schema.get(word, [])))
    for word in _PART_NAMED:
        yield from ((f"{word}/{name}", part) for name, part in schema.get(word, {}).items())


def _invalid(field: str, reason: str, path: str | None = None) -> InvalidSchema:
    return InvalidSchema(f"{field}{path or ''}: {reason}.", [Fault(reason, field, path=path)])


def _short(text: str) -> str:
    return text if len(text) <= MAX_REASON else text[:MAX_REASON] + "…"
