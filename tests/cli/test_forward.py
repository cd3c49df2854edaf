"""``logpost forward``: what arrives here is what a push would bring, and its answer settles the message."""

from __future__ import annotations

from standardwebhooks import Webhook

from tests.cli.conftest import Logpost
from tests.cli.stub import Answer, answering

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GROUP = "/v1/topics/orders/groups/billing"
DELIVERY = (
    b'{"id":"msg_10000_3e281a40_7","topic":"orders","partition":0,"offset":7,"key":"k","headers":{"a":"b"},'
    b'"correlationId":"c","publishedAt":"2026-11-25T14:00:00.123456Z","attempt":2,"maxAttempts":4,'
    b'"ackId":"ack_1","message":{"n":1.0}}'
)
SETTLED = Answer({"results": [{"ackId": "ack_1", "status": "ok"}]})


def stream(document: bytes) -> Answer:
    return Answer(b"id: m\nevent: message\ndata: " + document + b"\n\n", headers={"content-type": "text/event-stream"})


def test_a_message_arrives_as_a_push_would_bring_it_and_is_acked(logpost: Logpost) -> None:
    with answering(stream(DELIVERY), SETTLED) as server, answering(Answer(b"fine")) as receiver:
        done = logpost(
            "forward", "orders", "billing", "--to", receiver.url, "--secret", SECRET, "--limit", "1", url=server.url
        )
    assert done.exit_code == 0, done.stderr
    (asked,) = receiver.asked
    headers = {name.lower(): value for name, value in asked.headers.items()}
    assert Webhook(SECRET).verify(asked.body.decode(), headers) == {"n": 1.0}
    assert asked.body == b'{"n":1.0}'
    wanted = {
        "webhook-id": "msg_10000_3e281a40_7", "logpost-topic": "orders", "logpost-group": "billing",
        "logpost-offset": "7", "logpost-attempt": "2", "logpost-max-attempts": "4", "logpost-ack-id": "ack_1",
        "logpost-key": "k", "message-header-a": "b", "correlation-id": "c", "content-type": "application/json",
    }  # fmt: skip
    assert {name: headers[name] for name in wanted} == wanted
    assert server.asked[0].target == f"{GROUP}/stream?max=1"
    assert (server.asked[1].target, server.asked[1].json) == (f"{GROUP}/ack", {"ackIds": ["ack_1"]})
    assert '"outcome": "ack", "status": 200' in done.stdout


def test_a_failure_is_printed_and_nacks_with_its_reason(logpost: Logpost) -> None:
    with answering(stream(DELIVERY), SETTLED) as server, answering(Answer(b"oh no", status=500)) as receiver:
        done = logpost("forward", "orders", "billing", "--to", receiver.url, "--limit", "1", url=server.url)
    assert server.asked[1].target == f"{GROUP}/nack"
    assert server.asked[1].json == {"ackIds": ["ack_1"], "reason": "the endpoint answered 500"}
    assert '"outcome": "nack", "status": 500' in done.stdout
    assert '"excerpt": "oh no"' in done.stdout


def test_without_a_group_nothing_is_settled(logpost: Logpost) -> None:
    published = DELIVERY.replace(b'"attempt":2,"maxAttempts":4,"ackId":"ack_1",', b"")
    with answering(stream(published)) as server, answering(Answer(b"")) as receiver:
        done = logpost("forward", "orders", "--to", receiver.url, "--limit", "1", url=server.url)
    assert done.exit_code == 0, done.stderr
    assert [asked.target for asked in server.asked] == ["/v1/topics/orders/stream?from=latest"]
    assert not {"logpost-ack-id", "logpost-group"} & {name.lower() for name in receiver.asked[0].headers}


def test_a_secret_that_is_none_is_refused_before_anything_is_taken(logpost: Logpost) -> None:
    done = logpost("forward", "orders", "billing", "--to", "http://127.0.0.1:1", "--secret", "hunter2")
    assert done.exit_code == 2
    assert "hunter2" not in done.stderr
