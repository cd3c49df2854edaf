"""What payloads are taken for, and that they are never changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.errors import InvalidField, InvalidJson
from app.domain.payload import MAX_DEPTH, check_json, decode, depth_of

BAD = [
    b"", b" ", b"\n", b"NaN", b"Infinity", b"-Infinity", b"[NaN]", b'"a\nb"', b'"a\tb"', b'"a\x00b"', b'"\\x"',
    b'"\\u12g4"', b"01", b"-",
    b"1.", b".5", b"1e", b"1e+", b"--1", b"+1", b"[1,]", b'{"a":1,}', b'{"a"}', b"[1 2]", b"tru", b"truee", b'"abc',
    b"1 2", b"\xef\xbb\xbf1", b'"\xff"', b'"\xc3\x28"', b'"\xed\xa0\x80"', b'"\xc0\xaf"', b"{a:1}", b"{'a':1}",
    b"[,1]", b'{"a":1 "b":2}',
    b'{"a":}', b"{1:2}", b"0x1", b"[1]]", b'"\\u12"', b"/*c*/1", b"1//c", b"\x0c1", b"\xc2\xa01", b"1\x00",
    b'{"a\nb":1}',
    b'"\\ud800"', b'"\\ud800 and more to come"', b'"\\udc00 and more to come"', b'"\\ud800\\u0041 and more"',
    b'{"\\ud800 a name":1}',
    b'"\\ude00\\ud83d swapped"', b"undefined", b"\x80", b"{", b"[", b'{"a":1}}', b"nul", b"1,2", b"'a'",
]  # fmt: skip
KEPT = [
    b"null", b"0", b"-0", b'""', b"[]", b"{}", b"1e999", b"-1E-999", b"123456789012345678901234567890", b'"\\u0000"',
    b'"\\ud83d\\ude00"',
    b'{"a":1,"a":2}', b' {"a" : [ 1 , 2 ] } ', b"\r\n[\t1]", b'"\xf0\x9f\x98\x80"', b'"\x7f"', b"1.0e5",
    b'"\\\\ud800"', b'"\\/"', b"0.1000",
]  # fmt: skip


@pytest.mark.parametrize("payload", BAD)
def test_what_is_not_json_is_refused_and_the_field_is_named(payload: bytes) -> None:
    with pytest.raises(InvalidJson) as refused:
        check_json(payload, "body")
    assert [fault.field for fault in refused.value.faults] == ["body"]


@pytest.mark.parametrize("payload", KEPT)
def test_odd_json_is_taken(payload: bytes) -> None:
    check_json(payload, "body")


def test_the_place_of_a_fault_is_said() -> None:
    with pytest.raises(InvalidJson, match="at byte 6"):
        check_json(b'{"a": ?}', "body")
    with pytest.raises(InvalidJson, match="not UTF-8 at byte 3"):
        check_json(b'"ab\xff"', "body")


@pytest.mark.parametrize(
    ("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"]":', b"}]"), (b'["\\"]",', b"]")]
)
def test_s16_depth_64_is_taken_and_65_refused(opening: bytes, closing: bytes) -> None:
    levels = depth_of(opening + b"1" + closing)
    most = MAX_DEPTH // levels
    check_json(opening * most + b"1" + closing * most, "body")
    with pytest.raises(InvalidJson, match="deeper than 64"):
        check_json(b"[" + opening * most + b"1" + closing * most + b"]", "body")


@pytest.mark.parametrize("levels", [1000, 100_000, 1_000_000])
def test_s15_absurd_depth_is_refused_as_depth(levels: int) -> None:
    with pytest.raises(InvalidJson, match="deeper than 64"):
        check_json(b"[" * levels + b"]" * levels, "body")


def test_many_brackets_are_no_depth() -> None:
    check_json(b"[" + b",".join([b"[{}]"] * 1000) + b"]", "body")
    check_json(b'"' + b"[{" * 1000 + b'"', "body")


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=30,
)


@given(JSON, st.booleans(), st.sampled_from([None, 1]))
def test_whatever_json_writes_is_taken(value: Any, escaped: bool, indent: int | None) -> None:
    payload = json.dumps(value, ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogatepass")
    if b"\xed" in payload or "\\ud" in json.dumps(value):
        return  # text that may hold half a surrogate pair has its own test
    check_json(payload, "body")


def _depth(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@given(JSON)
@example({'"[\\': ["]}", {"\\\\": []}]})
def test_depth_is_that_of_the_value(value: Any) -> None:
    assert depth_of(json.dumps(value).encode()) == _depth(value)


def _strict(payload: bytes) -> bool:
    """Whether the standard library, told to be strict, takes it."""

    def refuse(_word: str) -> None:
        raise ValueError

    try:
        text = payload.decode()
        if text.startswith("\ufeff"):
            return False
        json.dumps(json.loads(text, parse_constant=refuse, parse_int=str), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()).flatmap(
    lambda payload: st.tuples(st.integers(0, len(payload)), st.sampled_from(b'"\\{}[],:0e-.u\x00\xff ')).map(
        lambda where: payload[: where[0]] + bytes([where[1]]) + payload[where[0] :])
))  # fmt: skip
def test_damaged_json_is_judged_as_by_a_strict_parser(payload: bytes) -> None:
    try:
        check_json(payload, "body")
        taken = True
    except (InvalidJson, InvalidField):
        taken = False
    assert taken is _strict(payload)


def test_decoding_knows_numbers_beyond_64_bits() -> None:
    assert decode(b"[1e999, 1]") == [float("inf"), 1]
    assert decode(b"[1e999, " + b"9" * 5000 + b"]") == [float("inf"), float("inf")]
    assert decode(b'{"a": 123456789012345678901234567890}') == {"a": 123456789012345678901234567890.0}
