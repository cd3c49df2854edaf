"""Schemas: what they find in a message, and which of them are refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.domain.errors import InvalidSchema
from app.domain.schema import MAX_FAULTS, compile_schema, pointer

ORDER = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "string"},
        "lines": {"type": "array", "items": {"properties": {"n": {"minimum": 1}}}},
    },
}


def doubling(levels: int) -> dict[str, Any]:
    """A schema of references, each of which leads to two."""
    defs: dict[str, Any] = {"a0": {"type": "string"}}
    for level in range(1, levels + 1):
        defs[f"a{level}"] = {"allOf": [{"$ref": f"#/$defs/a{level - 1}"}, {"$ref": f"#/$defs/a{level - 1}"}]}
    return {"$defs": defs, "$ref": f"#/$defs/a{levels}"}


def test_every_fault_has_its_path() -> None:
    faults = compile_schema(ORDER, "validate.schema").faults({"id": 7, "lines": [{"n": 1}, {"n": 0}]})
    assert [fault.path for fault in faults] == ["/id", "/lines/1/n"]
    assert compile_schema(ORDER, "validate.schema").faults({"id": "x"}) == []


def test_a_pointer_escapes_its_parts() -> None:
    assert pointer(["a/b", "c~d", 0]) == "/a~1b/c~0d/0"


def test_faults_are_few_and_do_not_repeat_the_value() -> None:
    schema = compile_schema({"items": {"type": "integer"}}, "validate.schema")
    faults = schema.faults(["secret" * 1000] * 100)
    assert len(faults) == MAX_FAULTS
    assert all("secret" not in fault.reason and len(fault.reason) < 300 for fault in faults)


@pytest.mark.parametrize("schema", [
    [], "x", 1, None, {"type": "objekt"}, {"minLength": -1}, {"pattern": "("}, {"pattern": "(?=a)"},
    {"pattern": r"(a)\1"},
    {"$ref": "#/$defs/nowhere"}, {"$ref": "https://example.com/schema"}, {"$ref": "file:///etc/passwd"},
    {"pattern": "(a{1000}){1000}"}, {"$defs": {"a": {"$id": "https://example.com/a"}}},
])  # fmt: skip
def test_a_schema_that_does_not_compile_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidSchema) as refused:
        compile_schema(schema, "validate.schema")
    assert {fault.field for fault in refused.value.faults} == {"validate.schema"}


@pytest.mark.parametrize("schema", [
    doubling(25),
    {"allOf": [{"$ref": "#"}]},
    {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
    {"allOf": [{"properties": {"l": {"$ref": "#"}}}, {"properties": {"l": {"$ref": "#"}}}]},
    {"enum": ["x" * 70_000]},
])  # fmt: skip
def test_a_schema_that_could_take_forever_is_refused_at_once(schema: Any) -> None:
    started = time.process_time()
    with pytest.raises(InvalidSchema):
        compile_schema(schema, "validate.schema")
    assert time.process_time() - started < 2


def test_a_schema_nested_beyond_reason_is_refused() -> None:
    schema: Any = True
    for _ in range(3000):
        schema = {"not": schema}
    with pytest.raises(InvalidSchema):
        compile_schema(schema, "validate.schema")


@pytest.mark.parametrize("schema", [
    True, {}, {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}, {"items": {"$ref": "#"}},
    {"$defs": {"n": {"properties": {"c": {"items": {"$ref": "#/$defs/n"}}}}}, "$ref": "#/$defs/n"}, doubling(8),
    {"properties": {"$ref": {"type": "string"}, "properties": {"type": "object"}}}, {"const": {"properties": 5,
    "$ref": 1}},
    {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/order", "type": "object"},
    {"$defs": {"a": {"$anchor": "here", "type": "string"}}, "$ref": "#here"},
])  # fmt: skip
def test_a_sensible_schema_is_taken(schema: Any) -> None:
    compile_schema(schema, "validate.schema")


def test_s45_a_pattern_is_matched_in_linear_time() -> None:
    schema = compile_schema({"pattern": "^(a+)+$"}, "validate.schema")
    started = time.process_time()
    assert schema.faults("a" * 10_000 + "b")
    assert time.process_time() - started < 1


@pytest.mark.parametrize("large", [1e22, 10**30, -(2**63) - 1, 1e100])
def test_a_number_that_storage_gives_back_as_another_is_refused_where_it_stands(large: float) -> None:
    with pytest.raises(InvalidSchema) as refused:
        compile_schema({"properties": {"a": {"enum": [1, large]}}}, "validate.schema")
    assert refused.value.faults[0].path == "/properties/a/enum/1"
    compile_schema({"maximum": 1e-5, "minimum": 2**62, "multipleOf": 0.5}, "validate.schema")
