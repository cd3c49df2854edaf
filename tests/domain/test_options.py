"""Keys, headers and the other options: what is refused because it could not be kept or sent on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain import options
from app.domain.errors import InvalidField


@pytest.mark.parametrize("key", ["", "acct_1", "é", "a b", "line\nbreak", "😀" * 256])
def test_a_key_may_be_any_text(key: str) -> None:
    assert options.key_fault(key) is None


@pytest.mark.parametrize("key", ["\0", "a\0b", "x" * 1025, "é" * 513, "\ud800" * 300])
def test_a_key_that_postgres_cannot_hold_or_nobody_needs_is_refused(key: str) -> None:
    assert options.key_fault(key) is not None


@pytest.mark.parametrize("key", ["", "\0", "x" * 256])
def test_an_idempotency_key_is_short_and_not_empty(key: str) -> None:
    assert options.idempotency_key_fault(key) is not None


@pytest.mark.parametrize("name", ["", "a b", "a:b", "é", "a\r", "a\n", "(a)", "a/b", "x" * 129, "a\0"])
def test_a_header_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(InvalidField) as refused:
        options.check_headers({name: "x"}, "headers")
    assert [str(fault.field).startswith("headers") for fault in refused.value.faults] == [True]


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0b", "\x7f", "a\x01", " a", "a ", "\ta", "a\x0bb"])
def test_s35_a_header_value_that_cannot_be_sent_on_is_refused(value: str) -> None:
    with pytest.raises(InvalidField, match=r"headers\.a"):
        options.check_headers({"a": value}, "headers")


@pytest.mark.parametrize("value", ["", "a b", "a\tb", "é", "Euro € 😀", "a" * 8000])
def test_a_header_value_may_be_any_other_text(value: str) -> None:
    options.check_headers({"X-Name_1!": value}, "headers")


def test_s35_thirty_two_headers_of_eight_kilobytes_are_the_most() -> None:
    options.check_headers({f"h{number}": "x" for number in range(32)}, "headers")
    with pytest.raises(InvalidField, match="32 are allowed"):
        options.check_headers({f"h{number}": "x" for number in range(33)}, "headers")
    options.check_headers({"a": "é" * 4095}, "headers")
    with pytest.raises(InvalidField, match="8192"):
        options.check_headers({"a": "é" * 2048, "b": "é" * 2048}, "headers")


def test_names_that_differ_in_case_only_are_the_same() -> None:
    with pytest.raises(InvalidField, match="given twice"):
        options.check_headers({"Trace": "1", "trace": "2"}, "headers")


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", "-1", "1.0", "1e3", "0x1", "1_000", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 16]
)
def test_a_header_is_never_coerced_to_a_number(text: str) -> None:
    assert options.whole_number(text) is None


@given(st.integers(0, 10**15 - 1))
def test_decimal_digits_are_a_number(number: int) -> None:
    assert options.whole_number(str(number)) == number


def test_delays_and_times_to_live_have_bounds() -> None:
    assert options.delay_fault(0) is None
    assert options.delay_fault(-1) is not None
    assert options.delay_fault(options.YEAR_MS + 1) is not None
    assert options.ttl_fault(1) is None
    assert options.ttl_fault(0) is not None
