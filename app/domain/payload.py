"""Payloads: the bytes of a JSON value, checked without building objects and kept as they came.

What is refused: bytes that are not UTF-8, anything outside the grammar of RFC 8259 (``NaN`` and raw control characters
among it), escapes of half a surrogate pair, which are no Unicode text, and nesting deeper than MAX_DEPTH. What is kept
byte for byte: numbers of any size, ``\\u0000``, repeated names, white space.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

import msgspec
import orjson

from app.domain.errors import Fault, InvalidField, InvalidJson

MAX_DEPTH = 64

# Raw makes it walk over the value and check it without keeping anything.
_SYNTAX = msgspec.json.Decoder(msgspec.Raw)

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NOT_BRACKETS_OR_QUOTES = bytes(set(_NOT_BRACKETS) - set(b'"'))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

# How msgspec says where: "… (byte 17)" and "… - at `$.messages[3].options`".
_AT_BYTE = re.compile(r"(?:JSON is malformed: )?(?P<reason>.*?)(?: \(byte (?P<byte>\d+)\))?", re.DOTALL)
_AT_PATH = re.compile(r"(?P<reason>.*?)(?: - at `(?P<root>key in )?\$(?P<path>.*)`)?", re.DOTALL)
_INDEX = re.compile(r"\[(\d+)\]")


def check_json(payload: bytes, field: str) -> None:
    """Raises InvalidJson, which says what of ``field`` is wrong and at which byte."""
    try:
        if not payload.isascii():
            payload.decode()
        _SYNTAX.decode(payload)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise invalid_json(error, field, empty=not payload.strip()) from None
    check_depth(payload, field)


def check_depth(payload: bytes, field: str) -> None:
    """Raises InvalidJson if a payload, valid otherwise, is nested too deeply."""
    if may_be_deep(payload) and depth_of(payload) > MAX_DEPTH:
        raise _too_deep(field)


def may_be_deep(payload: bytes) -> bool:
    """False if it has too few brackets to be nested too deeply, as nearly every payload."""
    # To search is much cheaper than to count.
    if payload.find(b"{", 1) < 0 and b"[" not in payload:
        return False
    return payload.count(b"{") + payload.count(b"[") > MAX_DEPTH


def depth_of(payload: bytes) -> int:
    """How deeply valid JSON is nested: 0 for a scalar, 1 for ``[]``."""
    skeleton = payload.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_BRACKETS_OR_QUOTES)
    brackets = b"".join(skeleton.split(b'"')[::2])  # every other piece was inside of a string
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def invalid_json(
    error: UnicodeDecodeError | msgspec.DecodeError | RecursionError, field: str, *, empty: bool = False
) -> InvalidJson | InvalidField:
    """What a decoder says, in our terms: the place in the document where it is known, else the byte."""
    if empty:
        return InvalidJson(f"{field}: is empty where a JSON value is expected.", [Fault("is empty", field)])
    if isinstance(error, RecursionError):
        return _too_deep(field)
    if isinstance(error, UnicodeDecodeError):
        reason = f"is not UTF-8 at byte {error.start}"
        return InvalidJson(f"{field}: {reason}.", [Fault(reason, field)])
    if isinstance(error, msgspec.ValidationError):
        return _misfit(str(error), field)
    match = _AT_BYTE.fullmatch(str(error))
    assert match is not None
    reason = "ends too early" if "truncated" in match["reason"] else match["reason"]
    reason = f"is not JSON: {reason}" + (f" at byte {match['byte']}" if match["byte"] else "")
    return InvalidJson(f"{field}: {reason}.", [Fault(reason, field)])


def decode(payload: bytes) -> Any:
    """The value as Python objects, for what has to look inside.

    Numbers outside of 64 bits become floats; of a repeated name the last one counts.
    """
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:  # 1e999, which is infinite there and no error elsewhere
        return json.loads(payload, parse_int=_as_number)


def _as_number(digits: str) -> int | float:
    number = float(digits)
    return int(digits) if abs(number) < 2**63 else number


def _misfit(text: str, field: str) -> InvalidField:
    """JSON it is, but not of the shape that is expected here."""
    match = _AT_PATH.fullmatch(text)
    assert match is not None
    path = (match["path"] or "").removeprefix(".")
    reason = match["reason"].replace("`", "'")
    reason = reason[0].lower() + reason[1:]
    index = _INDEX.search(path)
    return InvalidField(
        f"{path or field}: {reason}", [Fault(reason, path or field, int(index[1]) if index is not None else None)]
    )


def _too_deep(field: str) -> InvalidJson:
    reason = f"is nested deeper than {MAX_DEPTH} levels"
    return InvalidJson(f"{field}: {reason}.", [Fault(reason, field)])
