"""``logpost tail`` and ``pull --follow``: streams that go on from where they were cut off."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Logpost
from tests.cli.stub import Answer, answering, refusal

STREAM = "/v1/topics/orders/stream"


def events(*frames: str) -> Answer:
    return Answer(b":\nretry: 1\n" + "".join(frames).encode(), headers={"content-type": "text/event-stream"})


def message(number: int) -> str:
    return f'id: p{number}\nevent: message\ndata: {{"n": {number}.0}}\n\n'


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.events.FIRST_PAUSE_S", 0.001)


def test_a_tail_goes_on_after_the_last_whole_event(logpost: Logpost) -> None:
    with answering(events(message(1), message(2), 'id: p3\ndata: {"n"'), Answer(status=0), events(message(3))) as stub:
        result = logpost("tail", "orders", "--from", "earliest", "--limit", "3", url=stub.url)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ['{"n": 1.0}', '{"n": 2.0}', '{"n": 3.0}']
    assert [asked.target for asked in stub.asked] == [f"{STREAM}?from=earliest"] * 3
    assert [asked.headers.get("last-event-id") for asked in stub.asked] == [None, "p2", "p2"]


def test_gaps_and_problems_that_pass_are_told_beside_the_messages(logpost: Logpost) -> None:
    gap = 'id: p5\nevent: gap\ndata: {"partitions": []}\n\n'
    problem = f"event: problem\ndata: {json.dumps({'status': 503, 'code': 'shutting_down', 'detail': 'Soon.'})}\n\n"
    with answering(events(gap, problem), events(message(6))) as stub:
        result = logpost("tail", "orders", "--limit", "1", url=stub.url)
    assert (result.exit_code, result.stdout) == (0, '{"n": 6.0}\n')
    assert "not retained" in result.stderr
    assert "shutting_down: Soon." in result.stderr
    assert stub.asked[1].headers["last-event-id"] == "p5"


def test_what_will_not_pass_ends_a_tail(logpost: Logpost) -> None:
    with answering(refusal(404, "topic_not_found", "There is no topic.")) as stub:
        result = logpost("tail", "orders", url=stub.url)
    assert (result.exit_code, result.stderr) == (1, "logpost: topic_not_found: There is no topic.\n")


def test_follow_acks_what_it_printed(logpost: Logpost) -> None:
    delivery = 'id: m\nevent: message\ndata: {"ackId": "a"}\n\n'
    acked = Answer({"results": [{"ackId": "a", "status": "ok"}]})
    with answering(events(delivery), acked, refusal(404, "group_not_found", "Gone.")) as stub:
        result = logpost("pull", "orders", "billing", "--follow", "--ack", "--max", "3", url=stub.url)
    assert (result.exit_code, result.stdout) == (1, '{"ackId": "a"}\n')
    assert stub.asked[0].target == "/v1/topics/orders/groups/billing/stream?max=3"
    assert stub.asked[1].json == {"ackIds": ["a"]}
