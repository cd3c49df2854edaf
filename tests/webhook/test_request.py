"""The request of a delivery: every message there can be makes one, and a receiver can read all of it back."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from app.domain.errors import InvalidField
from app.domain.group import Delivery, Group, GroupConfig, Retries
from app.domain.message import Message, NewMessage, message_id, meta_of
from app.domain.partition import partition_id
from app.domain.signature import generate_secret
from app.webhook.request import Letterhead, Request, check_headers, delivery_request

NOW = datetime.now(UTC).replace(microsecond=0)
SECRET = generate_secret()


def group(**delivery: Any) -> Group:
    settings = {"mode": "push", "url": "http://hooks.example.com/in", "secret": SECRET} | delivery
    config = GroupConfig(delivery=Delivery(**settings), retries=Retries(max=4), ack_timeout_ms=12_345)
    return Group(
        id=7, topic_id=3, topic="orders", name="billing", config=config, partitions=4, version=1, paused_since=None,
        pause_reason=None, topic_paused_since=None, topic_pause_reason=None, created_at=NOW, updated_at=NOW,
    )  # fmt: skip


def message(
    payload: bytes = b'{"a": 1.0}',
    key: str | None = None,
    headers: dict[str, str] | None = None,
    correlation_id: str | None = None,
    content_type: str | None = None,
) -> Message:
    new = NewMessage(payload, key=key, headers=headers or {}, correlation_id=correlation_id, content_type=content_type)
    return Message(partition_id(3, 2), 42, NOW, key, meta_of(new), payload)


MESSAGE_ID = message_id(partition_id(3, 2), NOW, 42)


def build(to: Group, what: Message, now: datetime = NOW) -> Request:
    return delivery_request(Letterhead(to), what, message_id=MESSAGE_ID, attempt=2, ack_id="ack_1_2_3_4_5_6", now=now)


def headers_of(request: Request) -> dict[str, str]:
    lowered = [name.lower() for name, _ in request.headers]
    assert len(lowered) == len(set(lowered)), "a header is there twice"
    return {name.lower(): value for name, value in request.headers}


def test_a_raw_delivery_is_the_stored_bytes_and_says_what_they_are() -> None:
    what = message(key="acct é/1", headers={"X-Trace": "t 1", "city": "Zürich"}, correlation_id="c-1")
    request = build(group(headers={"Authorization": "Bearer x"}), what)
    headers = headers_of(request)
    assert (request.url, request.body, request.timeout_ms) == ("http://hooks.example.com/in", b'{"a": 1.0}', 12_345)
    signature = headers.pop("webhook-signature")
    assert signature.startswith("v1,")
    assert headers == {
        "webhook-id": MESSAGE_ID,
        "webhook-timestamp": str(int(NOW.timestamp())),
        "logpost-topic": "orders",
        "logpost-group": "billing",
        "logpost-partition": "2",
        "logpost-offset": "42",
        "logpost-attempt": "2",
        "logpost-max-attempts": "5",
        "logpost-ack-id": "ack_1_2_3_4_5_6",
        "logpost-key": "acct%20%C3%A9%2F1",
        "correlation-id": "c-1",
        "content-type": "application/json",
        "message-header-x-trace": "t 1",
        "message-header-city": "Zürich",
        "authorization": "Bearer x",
        "user-agent": "Logpost/1",
    }


def test_what_a_message_does_not_have_is_not_there() -> None:
    headers = headers_of(build(group(), message()))
    assert "logpost-key" not in headers
    assert "correlation-id" not in headers
    assert headers_of(build(group(), message(key="")))["logpost-key"] == ""


def test_the_content_type_is_the_messages() -> None:
    request = build(group(), message(b"\x00\xff", content_type="image/png"))
    assert request.body == b"\x00\xff"
    assert headers_of(request)["content-type"] == "image/png"


def test_a_receiver_verifies_it_with_a_library_of_its_own() -> None:
    for format_ in ("raw", "cloudevents-binary", "cloudevents-structured"):
        request = build(group(format=format_), message(), datetime.now(UTC))  # a verifier looks at its own clock
        assert Webhook(SECRET).verify(request.body.decode(), headers_of(request))


def test_the_old_secret_signs_too_until_its_time_is_over() -> None:
    old, now = generate_secret(), datetime.now(UTC)
    to = group(previous_secret=old, previous_secret_until=now + timedelta(seconds=1))
    both = headers_of(build(to, message(), now))
    assert len(both["webhook-signature"].split(" ")) == 2
    for secret in (SECRET, old):
        assert Webhook(secret).verify('{"a": 1.0}', both)
    after = headers_of(build(to, message(), now + timedelta(seconds=1)))["webhook-signature"]
    assert len(after.split(" ")) == 1


def test_without_a_secret_nothing_is_signed() -> None:
    headers = headers_of(build(group(secret=None), message()))
    assert "webhook-signature" not in headers
    assert headers["webhook-id"] == MESSAGE_ID


def test_the_user_agent_can_be_configured() -> None:
    assert headers_of(build(group(headers={"user-agent": "mine"}), message()))["user-agent"] == "mine"


EVENT = {
    "ce-specversion": "1.0",
    "ce-id": "e 1",
    "ce-source": "/shop",
    "ce-type": "order.placed",
    "ce-subject": "Zürich",
}


@pytest.mark.parametrize("format_", ["cloudevents-binary", "cloudevents-structured"])
def test_a_message_that_came_as_a_cloudevent_leaves_as_the_same_event(format_: str) -> None:
    request = build(group(format=format_), message(key="k", headers=EVENT | {"X-Trace": "t"}))
    event = from_http_event(HTTPMessage(headers_of(request), request.body))
    assert event.get_id() == "e 1"
    assert event.get_source() == "/shop"
    assert event.get_type() == "order.placed"
    assert event.get_subject() == "Zürich"
    # Whoever made the event gave it no time; the library would make one up.
    assert "ce-time" not in headers_of(request)
    assert b'"time":' not in request.body
    assert event.get_extension("partitionkey") == "k"
    assert event.get_data() == {"a": 1.0}
    assert headers_of(request)["message-header-x-trace"] == "t"
    assert headers_of(request)["webhook-id"] == MESSAGE_ID


@pytest.mark.parametrize("format_", ["cloudevents-binary", "cloudevents-structured"])
def test_any_other_message_gets_sensible_attributes(format_: str) -> None:
    request = build(group(format=format_), message(headers={"ce-type": "order.placed"}))
    event = from_http_event(HTTPMessage(headers_of(request), request.body))
    assert event.get_id() == MESSAGE_ID
    assert event.get_source() == "/topics/orders"
    assert event.get_type() == "order.placed"
    assert event.get_time() == NOW
    assert event.get_datacontenttype() == "application/json"


def test_attributes_are_percent_encoded_as_the_binding_says() -> None:
    request = build(group(format="cloudevents-binary"), message(headers=EVENT | {"ce-subject": 'Euro € 😀"%'}))
    assert headers_of(request)["ce-subject"] == "Euro%20%E2%82%AC%20%F0%9F%98%80%22%25"


def test_a_structured_event_splices_json_as_it_is_and_encodes_the_rest() -> None:
    to = group(format="cloudevents-structured")
    assert build(to, message(b'{"n": 1e400}')).body.endswith(b',"data":{"n": 1e400}}')
    for payload, content_type in ((b"\x00\xff", "image/png"), (b"{", "text/plain")):
        body = json.loads(build(to, message(payload, content_type=content_type)).body)
        assert "data" not in body
        assert body["datacontenttype"] == content_type


def test_a_header_cannot_pass_for_the_data_of_an_event() -> None:
    headers = EVENT | {"ce-data": "evil", "ce-datacontenttype": "text/html", "ce-Bad_Name": "x", "ce-empty": ""}
    request = build(group(format="cloudevents-structured"), message(headers=headers))
    body = json.loads(request.body)
    assert body["data"] == {"a": 1.0}
    assert body["datacontenttype"] == "application/json"
    assert "message-header-ce-data" in headers_of(request)


SENDABLE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
ANY_TEXT = st.text(st.characters())  # surrogates too
STORABLE_TEXT = st.text()  # jsonb holds no surrogates


@given(
    key=st.none() | ANY_TEXT,
    headers=st.dictionaries(STORABLE_TEXT, STORABLE_TEXT, max_size=4),
    correlation_id=st.none() | STORABLE_TEXT,
    content_type=st.none() | STORABLE_TEXT,
    payload=st.binary(max_size=50),
    format_=st.sampled_from(["raw", "cloudevents-binary", "cloudevents-structured"]),
)
def test_s36_every_message_makes_a_request_that_can_be_sent(
    key: str | None,
    headers: dict[str, str],
    correlation_id: str | None,
    content_type: str | None,
    payload: bytes,
    format_: str,
) -> None:
    what = msgspec.structs.replace(message(payload), key=key)
    meta = {"headers": headers, "correlationId": correlation_id, "contentType": content_type}
    request = build(group(format=format_), msgspec.structs.replace(what, meta=json.dumps(meta)))
    for name, value in request.headers:
        assert TOKEN.fullmatch(name)
        assert SENDABLE.fullmatch(value)
        value.encode()
    if key is not None:
        sent = dict(request.headers)["Logpost-Key"]
        assert unquote(sent, errors="surrogatepass") == key
    if format_ != "cloudevents-structured":
        assert request.body == payload


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Transfer-Encoding", "TE", "Connection", "Keep-Alive", "Upgrade", "Trailer", "Expect",
     "Content-Type", "Content-Encoding", "Accept-Encoding", "Proxy-Authorization", "webhook-id", "Webhook-Anything",
     "Logpost-Ack-Id", "Message-Header-X", "Correlation-Id", "ce-id", "", "a b", "a:b", "a\r\nb", "a\x00", "é"],
)  # fmt: skip
def test_s37_headers_that_frame_or_forge_cannot_be_configured(name: str) -> None:
    with pytest.raises(InvalidField) as refused:
        check_headers({"X-Good": "1", name: "1"})
    (fault,) = refused.value.faults
    assert fault.field is not None
    assert fault.field.startswith("delivery.headers.")
    assert fault.field.isprintable()
    assert fault.field.isascii()


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\n", "\x00", "é", "\x7f", "\ud800"])
def test_header_values_are_one_line_of_ascii(value: str) -> None:
    with pytest.raises(InvalidField):
        check_headers({"Authorization": value})


def test_header_bombs_cannot_be_configured() -> None:
    check_headers({f"X-{n}": "" for n in range(32)})
    with pytest.raises(InvalidField):
        check_headers({f"X-{n}": "" for n in range(33)})
    with pytest.raises(InvalidField):
        check_headers({"X-Long": "x" * 8192})
    with pytest.raises(InvalidField):
        check_headers({"X-Twice": "1", "x-twice": "2"})


def test_credentials_may_be_configured() -> None:
    check_headers({"Authorization": "Bearer abc", "X-Api-Key": "k\tk", "Cookie": "a=b", "User-Agent": "mine"})


def test_a_hook_gets_its_event_signed_and_nothing_of_the_log_it_comes_from() -> None:
    event = message(b'{"type":"message.dead"}', key="k", headers={"a": "b"})
    request = build(group(format="hook"), event, datetime.now(UTC))  # a verifier looks at its own clock
    assert request.body == b'{"type":"message.dead"}'
    assert Webhook(SECRET).verify(request.body.decode(), headers_of(request)) == {"type": "message.dead"}
    names = {name.lower() for name, _ in request.headers}
    assert names == {"webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "user-agent"}
