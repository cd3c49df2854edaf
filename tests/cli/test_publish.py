"""``logpost publish``: payloads as they are, batches, keys, and repeating without publishing twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli.batch import LineError, Options, batches, value_at
from app.cli.client import Client, Problem, Unreachable
from tests.cli.conftest import Logpost
from tests.cli.stub import Answer, answering, refusal
from tests.servers import ROOT, clean_environment

ONE = Answer({"id": "msg_1", "partition": 0, "offset": 1, "publishedAt": "2026-01-01T00:00:00Z", "duplicate": False})
BUSY = Answer({"code": "unavailable", "detail": "later"}, 503, {"Retry-After": "0"})
GONE = Answer(status=0)


def stored(count: int, *, duplicates: int = 0) -> Answer:
    return Answer({"results": [{"id": f"msg_{n}", "duplicate": n < duplicates} for n in range(count)]})


def test_one_message_is_sent_byte_for_byte_with_its_options_as_headers(logpost: Logpost) -> None:
    arguments = ["--key", "ord_é", "--header", "source: shop", "--header", "trace=a:b", "--correlation-id", "c",
                 "--idempotency-key", "i", "--delay-ms", "5", "--ttl-ms", "6"]  # fmt: skip
    with answering(ONE) as stub:
        result = logpost("publish", "orders", '{"a":  1.0}', *arguments, url=stub.url)
    assert (result.exit_code, json.loads(result.stdout)) == (0, ONE.body)
    (asked,) = stub.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/v1/topics/orders/messages", b'{"a":  1.0}')
    sent = {name: value.encode("latin-1").decode() for name, value in asked.headers.items()}
    assert sent["partition-key"] == "ord_é"
    assert sent["message-header-source"] == "shop"
    assert sent["message-header-trace"] == "a:b"
    assert [sent[name] for name in ("correlation-id", "idempotency-key", "delay-ms", "ttl-ms", "content-type")] == [
        "c", "i", "5", "6", "application/json",
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [(), ("-",), ("--file", "-")])
def test_a_message_comes_from_stdin(logpost: Logpost, arguments: tuple[str, ...]) -> None:
    with answering(ONE) as stub:
        assert logpost("publish", "orders", *arguments, url=stub.url, stdin=b'{"a":\n1}').exit_code == 0
    assert stub.asked[0].body == b'{"a":\n1}'


def test_a_message_comes_from_a_file_with_its_content_type(logpost: Logpost, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"\x00\xff")
    with answering(ONE) as stub:
        logpost("publish", "a", "--file", str(tmp_path / "image"), "--content-type", "image/png", url=stub.url)
    assert (stub.asked[0].body, stub.asked[0].headers["content-type"]) == (b"\x00\xff", "image/png")


def test_a_file_that_is_not_there_is_told(logpost: Logpost) -> None:
    result = logpost("publish", "orders", "--file", "/nowhere/x")
    assert (result.exit_code, result.stderr) == (1, "logpost: /nowhere/x: No such file or directory\n")


@pytest.mark.parametrize("key", [" a", "a\n", "a\r\nX: y"])
def test_a_key_that_no_header_can_carry_is_refused(logpost: Logpost, key: str) -> None:
    with answering(ONE) as stub:
        result = logpost("publish", "orders", "{}", "--key", key, url=stub.url)
    assert result.exit_code == 1
    assert not stub.asked


@pytest.mark.parametrize("trouble", [BUSY, GONE], ids=["503", "lost connection"])
def test_a_message_is_repeated_with_the_same_idempotency_key(logpost: Logpost, trouble: Answer) -> None:
    with answering(trouble, trouble, ONE) as stub:
        result = logpost("publish", "orders", "{}", url=stub.url)
    assert result.exit_code == 0
    keys = [asked.headers["idempotency-key"] for asked in stub.asked]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_two_publishes_have_two_idempotency_keys(logpost: Logpost) -> None:
    with answering(ONE) as stub:
        for _ in range(2):
            logpost("publish", "orders", "{}", url=stub.url)
    assert len({asked.headers["idempotency-key"] for asked in stub.asked}) == 2


def test_without_patience_no_key_is_invented_and_nothing_is_repeated(logpost: Logpost) -> None:
    with answering(BUSY) as stub:
        result = logpost("publish", "orders", "{}", "--retry-for-ms", "0", url=stub.url)
    assert (result.exit_code, result.stderr) == (1, "logpost: unavailable: later\n")
    assert len(stub.asked) == 1
    assert "idempotency-key" not in stub.asked[0].headers


def test_a_refusal_is_not_repeated(logpost: Logpost) -> None:
    with answering(refusal(422, "message_rejected", "no id")) as stub:
        result = logpost("publish", "orders", "{}", url=stub.url)
    assert (result.exit_code, result.stderr) == (1, "logpost: message_rejected: no id\n")
    assert len(stub.asked) == 1


class Rested(Exception):
    """Raised instead of waiting."""


def rest(pause_s: float) -> None:
    raise Rested(pause_s)


def test_a_server_is_left_alone_as_long_as_it_asks_and_patience_ends() -> None:
    with answering(Answer({}, 503, {"Retry-After": "7"})) as stub, Client(stub.url) as client:
        with pytest.raises(Rested, match=r"^7\.0$"):
            client.insist(lambda: client.call("GET", "/"), patience_ms=7500, rest=rest)
        with pytest.raises(Problem):
            client.insist(lambda: client.call("GET", "/"), patience_ms=6000, rest=rest)


def test_a_server_that_answered_is_waited_for_when_it_goes_away() -> None:
    with answering(Answer(headers={"Connection": "close"})) as stub:
        url = stub.url
        client = Client(url)
        client.call("GET", "/")
    with client, pytest.raises(Rested):
        client.insist(lambda: client.call("GET", "/"), patience_ms=1000, rest=rest)
    with Client(url) as stranger, pytest.raises(Unreachable):
        stranger.insist(lambda: stranger.call("GET", "/"), patience_ms=1000, rest=rest)


def test_lines_go_out_in_batches_spliced_in_as_they_are(logpost: Logpost, tmp_path: Path) -> None:
    lines = [f'{{"id":"ord_{n}", "total":{n}.50}}' for n in range(5)]
    (tmp_path / "events.ndjson").write_text("\n".join([lines[0], "", *lines[1:]]) + "\n")
    with answering(stored(2), stored(2), stored(1, duplicates=1)) as stub:
        result = logpost(
            "publish", "orders", "--file", str(tmp_path / "events.ndjson"), "--batch-size", "2", "--key-field", "id",
            "--header", "source=file", url=stub.url,
        )  # fmt: skip
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["published"], summary["duplicates"]) == (4, 1)
    assert [asked.target for asked in stub.asked] == ["/v1/topics/orders/messages/batch"] * 3
    assert [len(asked.json["messages"]) for asked in stub.asked] == [2, 2, 1]
    assert all(line.encode() in b"".join(asked.body for asked in stub.asked) for line in lines)
    options = [message["options"] for asked in stub.asked for message in asked.json["messages"]]
    assert [each["partitionKey"] for each in options] == [f"ord_{n}" for n in range(5)]
    assert all(each["headers"] == {"source": "file"} for each in options)
    prefixes, numbers = zip(*(each["idempotencyKey"].rsplit("-", 1) for each in options), strict=True)
    assert (len(set(prefixes)), numbers) == (1, ("1", "3", "4", "5", "6"))


def test_a_batch_is_repeated_with_the_same_idempotency_keys(logpost: Logpost) -> None:
    with answering(BUSY, GONE, stored(2)) as stub:
        result = logpost("publish", "orders", "--ndjson", url=stub.url, stdin=b"1\n2\n")
    assert result.exit_code == 0
    assert len(stub.asked) == 3
    assert len({asked.body for asked in stub.asked}) == 1


def test_a_given_idempotency_key_makes_running_a_file_again_harmless(logpost: Logpost) -> None:
    with answering(stored(2)) as stub:
        for _ in range(2):
            logpost("publish", "a", "--ndjson", "--idempotency-key", "load-7", url=stub.url, stdin=b"1\n2\n")
    keys = [[each["options"]["idempotencyKey"] for each in asked.json["messages"]] for asked in stub.asked]
    assert keys == [["load-7-1", "load-7-2"]] * 2


def test_a_refused_line_is_named_by_its_number(logpost: Logpost) -> None:
    problem = refusal(422, "message_rejected", "messages[1]: no id", errors=[{"index": 1, "reason": "no id"}])
    with answering(stored(2), problem) as stub:
        result = logpost("publish", "a", "--ndjson", "--batch-size", "2", url=stub.url, stdin=b"1\n2\n\n3\n4\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "logpost: line 5: message_rejected: messages[1]: no id; 2 messages before it are published\n"
    )


def test_a_line_that_is_not_json_stops_at_that_line(logpost: Logpost) -> None:
    with answering(stored(1)) as stub:
        result = logpost("publish", "a", "--ndjson", "--batch-size", "1", url=stub.url, stdin=b'1\n2}, {"message": 3\n')
    assert result.exit_code == 1
    assert result.stderr.startswith("logpost: line 2: not JSON (")
    assert result.stderr.endswith("; 1 messages before it are published\n")


@pytest.mark.parametrize("line", [b"{", b'"\xff"', b"1 2", b"NaN", b"[1,]", b'{"a":1}}', b"[" * 5000 + b"]" * 5000])
def test_only_one_whole_json_value_makes_a_message(line: bytes) -> None:
    with pytest.raises(LineError, match="line 1: not JSON"):
        list(batches([line], Options()))


def test_a_batch_ends_at_a_thousand_messages_or_its_bytes() -> None:
    counts = [len(batch.lines) for batch in batches([b"1\n"] * 2500, Options())]
    assert counts == [1000, 1000, 500]
    big = b'"' + b"x" * 1_500_000 + b'"\n'
    found = list(batches([big] * 5, Options()))
    assert [len(batch.lines) for batch in found] == [3, 2]
    assert sum(batch.size for batch in found) == 5 * len(big)


def test_a_slow_writer_does_not_keep_its_messages_waiting() -> None:
    """Two lines are there, the third is not yet: the two go out, while the pipe stays open."""
    with answering(stored(2), stored(1)) as stub:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "publish", "orders", "--ndjson"], cwd=ROOT,
            env=clean_environment({"LOGPOST_URL": stub.url}), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with process:
            assert process.stdin is not None
            process.stdin.write(b"1\n2\n3")
            process.stdin.flush()
            assert stub.was_asked.wait(100)
            process.stdin.close()
    assert process.returncode == 0
    assert [[message["message"] for message in asked.json["messages"]] for asked in stub.asked] == [[1, 2], [3]]


POINTERS: list[tuple[str, Any]] = [
    ("id", 7), ("/id", 7), ("/a/b", "x"), ("/list/1", "q"), ("/with~1slash", 1), ("/with~0tilde", 2), ("with/slash", 1),
    ("missing", None), ("/a/b/c", None), ("/list/9", None), ("/list/x", None), ("/id/z", None),
]  # fmt: skip


@pytest.mark.parametrize(("pointer", "expected"), POINTERS)
def test_a_pointer_leads_to_its_value(pointer: str, expected: Any) -> None:
    document = {"id": 7, "a": {"b": "x"}, "list": ["p", "q"], "with/slash": 1, "with~tilde": 2}
    assert value_at(document, pointer) == expected


def test_a_key_is_a_string_or_an_integer_and_may_be_missing() -> None:
    lines = [b'{"k":"a"}', b'{"k":12345678901234567890}', b"{}", b'{"k":null}']
    (batch,) = batches(lines, Options(key_field="k"))
    messages = json.loads(batch.body)["messages"]
    keys = [message.get("options", {}).get("partitionKey") for message in messages]
    assert keys == ["a", "12345678901234567890", None, None]
    for wrong in (b'{"k":1.5}', b'{"k":true}', b'{"k":{}}'):
        with pytest.raises(LineError, match="neither a string nor an integer"):
            list(batches([wrong], Options(key_field="k")))


def test_a_message_without_its_own_idempotency_key_is_refused() -> None:
    with pytest.raises(LineError, match="line 2: there is nothing at id"):
        list(batches([b'{"id":"a"}', b"{}"], Options(idempotency_field="id")))
