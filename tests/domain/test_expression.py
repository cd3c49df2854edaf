"""Expressions: refused early where they can be, harmless ever after."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidExpression
from app.domain.expression import Context, Kind, Verdict, compile_expression, seen

META = {"topic": "orders", "correlationId": None, "contentType": None}


def judge(text: str, message: Any = None, key: str | None = None, headers: dict[str, str] | None = None) -> Verdict:
    return compile_expression(text, "filter", "filter").judge(Context(message, key, headers or {}, META))


@pytest.mark.parametrize(("text", "message", "verdict"), [
    ("message.type == 'order.paid'", {"type": "order.paid"}, Verdict.MATCH),
    ("message.type == 'order.paid'", {"type": "order.void"}, Verdict.NO_MATCH),
    ("message.type == 'order.paid'", {}, Verdict.ERROR),
    ("has(message.type)", {}, Verdict.NO_MATCH),
    ("message.amount > 100", {"amount": 129.5}, Verdict.MATCH),
    ("message.amount == 3.0", {"amount": 3}, Verdict.MATCH),
    ("message.amount > 100", {"amount": "many"}, Verdict.ERROR),
    ("message.amount > 100", {"amount": 10**40}, Verdict.ERROR),
    ("message == null", None, Verdict.MATCH),
    ("message.a || true", {}, Verdict.MATCH),
    ("message.name.matches('^a+$')", {"name": "aaa"}, Verdict.MATCH),
    ("message.tags[0] in ['x', 'y']", {"tags": ["y"]}, Verdict.MATCH),
    ("message", True, Verdict.MATCH),
    ("message", "true", Verdict.ERROR),
])  # fmt: skip
def test_a_filter_matches_or_not_or_cannot_say(text: str, message: Any, verdict: Verdict) -> None:
    assert judge(text, message) is verdict


def test_key_headers_and_meta_can_be_seen() -> None:
    assert judge("key == 'k' && headers.a == 'b' && meta.topic == 'orders'", {}, "k", {"a": "b"}) is Verdict.MATCH
    assert judge("key == ''", {}) is Verdict.MATCH
    assert judge("'a' in headers", {}) is Verdict.NO_MATCH
    assert judge("meta.correlationId == null", {}) is Verdict.MATCH


def test_nul_does_not_end_a_text() -> None:
    assert judge("message.a == 'a'", seen(b'{"a": "a\\u0000b"}', None)) is Verdict.NO_MATCH
    assert judge("message.a.endsWith('b')", seen(b'{"a": "a\\u0000b"}', None)) is Verdict.MATCH
    assert judge("message.a == r'\\u0000'", seen(b'{"a": "\\\\u0000"}', None)) is Verdict.MATCH


def test_a_payload_that_is_not_json_is_null() -> None:
    assert seen(b"<a/>", "application/xml") is None
    assert seen(b"[1]", "application/vnd.x+json") == [1]
    assert seen(b"[1e999]", None) == [float("inf")]


@pytest.mark.parametrize(("text", "kind", "line", "column"), [
    ("message.a ==", "filter", 1, 13),
    ("message.a == 1 &&\n  foo == 2", "filter", 2, 3),
    ("headers.a > 5", "filter", 1, 11),
    ("message.l.exists(x, x > 1)", "rule", 1, 17),
    ("message.l.all(x, true)", "rule", 1, 14),
    ("message.l.map(x, x) == []", "filter", 1, 14),
    ("[1].filter(x, true) == []", "filter", 1, 11),
    ("[1].exists_one(x, true)", "filter", 1, 15),
    ("'not a bool'", "filter", 1, 1),
    ("1", "partitionKey", 1, 1),
    ("true", "partitionKey", 1, 1),
    ("'a'.matches('(')", "rule", 1, 1),
    ("timestamp('yesterday') < timestamp('2026-01-01T00:00:00Z')", "rule", 1, 1),
    ("1 / 0 == 1", "rule", 1, 1),
    ("", "filter", 1, 1),
    ("\ud800", "filter", 1, 1),
    ("(" * 40 + "true" + ")" * 40, "filter", 1, 1),
])  # fmt: skip
def test_a_bad_expression_is_refused_with_line_and_column(text: str, kind: Kind, line: int, column: int) -> None:
    with pytest.raises(InvalidExpression) as refused:
        compile_expression(text, kind, "filter")
    assert refused.value.extra == {"line": line, "column": column}
    assert {fault.field for fault in refused.value.faults} == {"filter"}


def test_s46_a_macro_is_named_when_it_is_refused() -> None:
    with pytest.raises(InvalidExpression, match="the macro 'map' is not available"):
        compile_expression("message.l.map(x, x) == []", "filter", "filter")


def test_a_thousand_characters_are_allowed_and_no_more() -> None:
    compile_expression("'" + "a" * 990 + "'=='a'", "filter", "filter")
    with pytest.raises(InvalidExpression, match="1000 are allowed"):
        compile_expression("'" + "a" * 994 + "'=='a'", "filter", "filter")


@pytest.mark.parametrize("text", [
    "int(key) > 3", "timestamp(message.at) > timestamp('2026-01-01T00:00:00Z')", "message.a.b.c == 1",
    "duration(headers.age) < duration('1h')", "timestamp(meta.publishedAt) > timestamp('2026-01-01T00:00:00Z')",
    "10 / message.n == 1", "meta.correlationId.startsWith('x')",
])  # fmt: skip
def test_what_may_hold_for_some_message_is_not_refused(text: str) -> None:
    compile_expression(text, "filter", "filter")


def test_a_partition_key_is_a_string_or_nothing() -> None:
    expression = compile_expression("message.account", "partitionKey", "distribution.partitionKey")
    assert expression.string(Context({"account": "a1"}, None, {}, META)) == "a1"
    others: list[Any] = [1, None, True, ["a1"], {}]
    for account in others:
        assert expression.string(Context({"account": account}, None, {}, META)) is None
    assert expression.string(Context({}, None, {}, META)) is None


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
HOSTILE = compile_expression(
    "message.a.b == 1 || message[0] > 'x' || size(message) > 3 || message.matches('a*') || string(message) == 'x'",
    "filter", "filter",
)  # fmt: skip


@given(ANYTHING)
def test_s47_no_message_makes_an_expression_raise(message: Any) -> None:
    assert HOSTILE.judge(Context(message, None, {}, META)) in Verdict
