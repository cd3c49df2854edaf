"""``logpost pull``: what is printed is what was stored, and only what was printed is acked."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from tests.cli.conftest import Logpost
from tests.cli.stub import Answer, answering
from tests.servers import ROOT, clean_environment

GROUP = "/v1/topics/orders/groups/billing"


def pulled(*messages: str) -> Answer:
    return Answer(b'{"messages":[' + ",".join(messages).encode() + b'],"empty":null}')


def acked(**statuses: str) -> Answer:
    results: list[dict[str, Any]] = [{"ackId": ack_id, "status": status} for ack_id, status in statuses.items()]
    return Answer({"results": results})


def test_messages_are_printed_a_line_each_digit_by_digit(logpost: Logpost) -> None:
    one, two = '{"ackId":"a","message":{"n":1.50,"e":1e400}}', '{"ackId":"b","message":[1,\r\n  2]}'
    with answering(pulled(one, two)) as stub:
        result = logpost("pull", "orders", "billing", "--max", "2", "--wait-ms", "9", "--consumer", "me", url=stub.url)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [one, two.replace("\r\n", "  ")]
    (asked,) = stub.asked
    assert (asked.target, asked.json) == (GROUP + "/pull", {"max": 2, "waitMs": 9, "consumer": "me"})


def test_what_was_printed_is_acked_when_asked_for(logpost: Logpost) -> None:
    with answering(pulled('{"ackId":"a"}', '{"ackId":"b"}'), acked(a="ok", b="ok")) as stub:
        result = logpost("pull", "orders", "billing", "--ack", url=stub.url)
    assert result.exit_code == 0
    assert (stub.asked[1].target, stub.asked[1].json) == (GROUP + "/ack", {"ackIds": ["a", "b"]})


def test_an_ack_that_came_too_late_is_told(logpost: Logpost) -> None:
    with answering(pulled('{"ackId":"a"}', '{"ackId":"b"}'), acked(a="ok", b="stale")) as stub:
        result = logpost("pull", "orders", "billing", "--ack", url=stub.url)
    assert result.exit_code == 1
    assert result.stderr == "logpost: 1 of 2 messages were not acked: their leases had ended\n"


def test_nothing_to_deliver_is_told_with_the_reason(logpost: Logpost) -> None:
    with answering(Answer({"messages": [], "empty": "paused"})) as stub:
        result = logpost("pull", "orders", "billing", "--ack", url=stub.url)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing to deliver: paused\n")


def test_a_limit_of_the_namespace_is_told_with_its_setting(logpost: Logpost) -> None:
    with answering(Answer({"messages": [], "empty": "max_in_flight", "limit": "At most 5 (LOGPOST_X)."})) as stub:
        result = logpost("pull", "orders", "billing", url=stub.url)
    assert result.stderr == "nothing to deliver: max_in_flight. At most 5 (LOGPOST_X).\n"
    assert len(stub.asked) == 1


def test_what_nobody_could_read_is_not_acked() -> None:
    """The reader of the pipe has gone before anything is written to it."""
    reader, writer = os.pipe()
    os.close(reader)
    with answering(pulled('{"ackId":"a"}'), acked(a="ok")) as stub:
        done = subprocess.run(
            [sys.executable, "-m", "app", "pull", "orders", "billing", "--ack"], cwd=ROOT, check=False,
            env=clean_environment({"LOGPOST_URL": stub.url, "PYTHONUNBUFFERED": ""}), stdout=writer,
            stderr=subprocess.PIPE,
        )  # fmt: skip
    os.close(writer)
    assert done.returncode == 1
    assert [asked.target for asked in stub.asked] == [GROUP + "/pull"]
