"""CloudEvents on their way in, against the specification and an independent implementation."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from app.domain.cloudevents import from_batch, from_binary, from_structured
from app.domain.errors import InvalidField, InvalidJson

REQUIRED = {"specversion": "1.0", "id": "1", "source": "/checkout", "type": "order.paid"}
HEADERS = {f"ce-{name}": value for name, value in REQUIRED.items()}


def structured(**members: Any) -> bytes:
    return json.dumps(REQUIRED | members).encode()


def test_binary_mode_takes_the_body_as_it_is() -> None:
    message = from_binary(HEADERS, b' {"a" : 1e999}', None)
    assert message.payload == b' {"a" : 1e999}'
    assert message.headers == HEADERS
    assert (message.key, message.content_type, message.idempotency_key) == (None, None, None)
    assert from_binary(HEADERS, b"\xff\x00", "image/png").content_type == "image/png"
    assert from_binary(HEADERS, b"", None).payload == b"null"
    with pytest.raises(InvalidJson):
        from_binary(HEADERS, b"{", "application/vnd.order+json")


@pytest.mark.parametrize(("sent", "meant"), [
    ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"), ("%e2%82%ac", "€"), ("%41bc", "Abc"), ("plain", "plain"),
    ("100%2525", "100%25"), ('"quoted"', "quoted"), (r'"a \"b\" \\ c"', r'a "b" \ c'), ('"%41"', "A"), ("%", "%"),
    ("%zz", "%zz"), ('"', '"'),
])  # fmt: skip
def test_header_values_are_unquoted_and_percent_decoded_once(sent: str, meant: str) -> None:
    assert from_binary(HEADERS | {"ce-subject": sent}, b"1", None).headers["ce-subject"] == meant


@pytest.mark.parametrize("sent", ["%FF", "%C3%28", "%ED%A0%80"])
def test_header_values_that_decode_to_no_text_are_refused(sent: str) -> None:
    with pytest.raises(InvalidField, match="ce-subject"):
        from_binary(HEADERS | {"ce-subject": sent}, b"1", None)


@pytest.mark.parametrize("name", REQUIRED)
def test_required_attributes_are_required(name: str) -> None:
    with pytest.raises(InvalidField, match=f"ce-{name}"):
        from_binary({key: value for key, value in HEADERS.items() if key != f"ce-{name}"}, b"1", None)
    with pytest.raises(InvalidField, match=name):
        from_structured(structured(**{name: None}))
    with pytest.raises(InvalidField, match=name):
        from_structured(structured(**{name: ""}))


def test_other_versions_are_refused() -> None:
    with pytest.raises(InvalidField, match="specversion"):
        from_structured(structured(specversion="0.3"))


def test_structured_mode_keeps_the_bytes_of_the_data() -> None:
    body = (
        b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data": {"n":12345678901234567890123,"u":"\\u0000"} }'
    )
    assert from_structured(body).payload == b'{"n":12345678901234567890123,"u":"\\u0000"}'


@pytest.mark.parametrize(("members", "payload", "content_type"), [
    ({"data": {"a": 1}}, b'{"a": 1}', None),
    ({"data": None}, b"null", None),
    ({}, b"null", None),
    ({"data": "<a/>", "datacontenttype": "application/xml"}, b"<a/>", "application/xml"),
    ({"data": "text", "datacontenttype": "application/json; charset=utf-8"}, b'"text"', None),
    ({"data": [1], "datacontenttype": "application/vnd.x+json"}, b"[1]", "application/vnd.x+json"),
    ({"data_base64": base64.b64encode(b"\x00\xff").decode()}, b"\x00\xff", "application/octet-stream"),
    ({"data_base64": base64.b64encode(b"[1]").decode(), "datacontenttype": "application/json"}, b"[1]", None),
    ({"datacontenttype": "text/plain"}, b"", "text/plain"),
])  # fmt: skip
def test_data_becomes_the_payload_by_its_type(
    members: dict[str, Any], payload: bytes, content_type: str | None
) -> None:
    message = from_structured(structured(**members))
    assert (message.payload, message.content_type) == (payload, content_type)
    assert "ce-datacontenttype" not in message.headers


@pytest.mark.parametrize("members", [
    {"data": 1, "data_base64": "AA=="}, {"data_base64": "?"}, {"data_base64": 5}, {"data_base64": "AA="},
    {"data": {"a": 1}, "datacontenttype": "text/plain"}, {"datacontenttype": "nonsense"}, {"Subject": "x"},
    {"sub_ject": "x"},
    {"n": 1.5}, {"n": 2**31}, {"n": []}, {"n": {}}, {"id": 7}, {"type": True}, {"subject": 7}, {"time": 1522949460},
])  # fmt: skip
def test_what_the_format_does_not_allow_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidField):
        from_structured(structured(**members))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b"{",
        b'{"id":"\xff"}',
        b'{"a":' * 2000,
        structured(data_base64="WzE=", datacontenttype="a/json"),
    ],
)
def test_what_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises((InvalidJson, InvalidField)):
        from_structured(body)


def test_attributes_become_strings() -> None:
    headers = from_structured(structured(flag=True, off=False, number=-7, subject="é", nothing=None)).headers
    assert headers == HEADERS | {"ce-flag": "true", "ce-off": "false", "ce-number": "-7", "ce-subject": "é"}


TIMES = ["2018-04-05T17:31:00Z", "2018-04-05t17:31:00.123456789z", "2016-12-31T23:59:60Z", "2018-04-05T17:31:00-07:00"]
NO_TIMES = [
    "", "yesterday", "2018-04-05", "2018-04-05T17:31:00", "2018-02-30T17:31:00Z", "2018-04-05T25:31:00Z",
    "2018-04-05T17:31:61Z", "2018-04-05T17:31Z", "20180405T173100Z", "1522949460",
]  # fmt: skip


@pytest.mark.parametrize("time", TIMES)
def test_a_time_is_kept_as_it_was_written(time: str) -> None:
    assert from_structured(structured(time=time)).headers["ce-time"] == time


@pytest.mark.parametrize("time", NO_TIMES)
def test_a_time_that_is_none_is_refused_by_name(time: str) -> None:
    with pytest.raises(InvalidField, match=r"^time: must be"):
        from_structured(structured(time=time))
    with pytest.raises(InvalidField, match=r"^ce-time: must be"):
        from_binary(HEADERS | {"ce-time": time}, b"1", None)


def test_partitionkey_is_the_key() -> None:
    assert from_structured(structured(partitionkey="k")).key == "k"
    assert from_binary(HEADERS | {"ce-partitionkey": "%C3%A9"}, b"1", None).key == "é"
    with pytest.raises(InvalidField, match="partitionkey"):
        from_structured(structured(partitionkey="a\0b"))


def test_source_and_id_name_an_event() -> None:
    keys = {from_structured(structured(id=name, source=source)).event_key for name in "ab" for source in "xy"}
    assert len(keys) == 4
    assert len(str(from_structured(structured(source="s" * 5000)).event_key)) <= 255


def test_a_batch_names_the_event_at_fault() -> None:
    assert from_batch(b"[]", 10) == []
    assert [
        event.payload for event in from_batch(b"[" + structured(data=1) + b"," + structured(data=2) + b"]", 10)
    ] == [b"1", b"2"]
    with pytest.raises(InvalidField) as refused:
        from_batch(b"[" + structured() + b"," + structured(id="") + b"]", 10)
    assert [(fault.index, fault.field) for fault in refused.value.faults] == [(1, "[1].id")]
    with pytest.raises(InvalidField, match="1 are allowed"):
        from_batch(b"[" + structured() + b"," + structured() + b"]", 1)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
ATTRIBUTES = st.fixed_dictionaries(
    {"id": TEXT, "source": TEXT, "type": TEXT, "specversion": st.just("1.0"),
    "datacontenttype": st.just("application/json")},
    optional={"subject": TEXT, "partitionkey": TEXT, "traceparent": TEXT},
)  # fmt: skip
DATA = st.dictionaries(
    TEXT, st.none() | st.integers(-(2**53), 2**53) | TEXT | st.lists(st.booleans(), max_size=3), max_size=4
)


@given(ATTRIBUTES, DATA)
def test_what_another_implementation_writes_is_understood(attributes: dict[str, str], data: dict[str, Any]) -> None:
    event = CloudEvent(dict(attributes), data)
    expected = {f"ce-{name}": value for name, value in attributes.items() if name != "datacontenttype"}

    sent = to_binary(event, JSONFormat())
    headers = {name.lower(): value for name, value in sent.headers.items() if name.startswith("ce-")}
    binary = from_binary(headers, sent.body, sent.headers["content-type"])
    whole = from_structured(to_structured(event, JSONFormat()).body)
    for message in (binary, whole):
        assert json.loads(message.payload) == data
        assert {name: value for name, value in message.headers.items() if name != "ce-time"} == expected
        assert message.key == attributes.get("partitionkey")
    assert binary.event_key == whole.event_key
