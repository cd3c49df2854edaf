"""Which call each command makes, and what it prints of the answer."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import Logpost
from tests.cli.stub import Answer, answering, refusal
from tests.servers import ROOT

GROUP = "/v1/topics/orders/groups/billing"

CALLS = [
    ("topics show orders", "GET", "/v1/topics/orders", None),
    ("topics stats orders", "GET", "/v1/topics/orders/stats", None),
    ("topics delete orders", "DELETE", "/v1/topics/orders", None),
    ("topics purge orders", "POST", "/v1/topics/orders/purge", {}),
    ("topics pause orders", "POST", "/v1/topics/orders/pause", {}),
    ("topics pause orders --reason maintenance", "POST", "/v1/topics/orders/pause", {"reason": "maintenance"}),
    ("topics resume orders", "POST", "/v1/topics/orders/resume", {}),
    ("topics declare orders", "PUT", "/v1/topics/orders", {}),
    (
        "topics declare orders --partitions 4 --partition-key message.id --max-count 9 --tag a --tag b",
        "PUT",
        "/v1/topics/orders",
        {
            "distribution": {"partitions": 4, "partitionKey": "message.id"},
            "retention": {"maxCount": 9},
            "tags": ["a", "b"],
        },
    ),
    (
        'topics declare orders --config {"retention":{"maxAgeMs":5}} --max-count 9',
        "PUT",
        "/v1/topics/orders",
        {"retention": {"maxAgeMs": 5, "maxCount": 9}},
    ),
    ("groups show orders billing", "GET", GROUP, None),
    ("groups stats orders billing", "GET", GROUP + "/stats", None),
    ("groups lag orders billing", "GET", GROUP + "/lag", None),
    ("lag orders billing", "GET", GROUP + "/lag", None),
    ("groups delete orders billing", "DELETE", GROUP, None),
    ("groups pause orders billing --reason why", "POST", GROUP + "/pause", {"reason": "why"}),
    ("groups resume orders billing", "POST", GROUP + "/resume", {}),
    ("groups declare orders billing --start-from earliest", "PUT", GROUP, {"startFrom": "earliest"}),
    ("groups declare orders billing --start-from 17", "PUT", GROUP, {"startFrom": 17}),
    (
        "groups declare orders billing --ordering key --filter true --retries-max 0 --ack-timeout-ms 500",
        "PUT",
        GROUP,
        {"ordering": "key", "filter": "true", "retries": {"max": 0}, "ackTimeoutMs": 500},
    ),
    (
        "groups declare orders billing --push-url http://127.0.0.1:9000/hook",
        "PUT",
        GROUP,
        {"delivery": {"mode": "push", "url": "http://127.0.0.1:9000/hook"}},
    ),
    ("groups declare orders billing --pull", "PUT", GROUP, {"delivery": {"mode": "pull"}}),
    ("groups seek orders billing earliest", "POST", GROUP + "/seek", {"position": "earliest"}),
    ("groups seek orders billing --offset 7", "POST", GROUP + "/seek", {"offset": 7}),
    ("groups seek orders billing --message-id msg_1", "POST", GROUP + "/seek", {"messageId": "msg_1"}),
    (
        "groups seek orders billing --timestamp 2026-01-02T03:04:05Z",
        "POST",
        GROUP + "/seek",
        {"timestamp": "2026-01-02T03:04:05Z"},
    ),
    ("groups replay orders billing --from 12", "POST", GROUP + "/replay", {"from": 12}),
    ("groups replay orders billing --from 2026-01-02", "POST", GROUP + "/replay", {"from": "2026-01-02"}),
    ("dead-letters show orders billing msg_1", "GET", GROUP + "/dead-letters/msg_1", None),
    ("dead-letters retry orders billing msg_1", "POST", GROUP + "/dead-letters/msg_1/retry", {}),
    ("dead-letters retry-all orders billing", "POST", GROUP + "/dead-letters/retry", {}),
    ("dead-letters delete orders billing msg_1", "DELETE", GROUP + "/dead-letters/msg_1", None),
    ("keys create loader --scope publish", "POST", "/v1/keys", {"name": "loader", "scopes": ["publish"]}),
    (
        "keys create loader --scope publish --scope consume --topic orders-* --expires-at 2030-01-02T03:04:05Z",
        "POST",
        "/v1/keys",
        {
            "name": "loader",
            "scopes": ["publish", "consume"],
            "topics": ["orders-*"],
            "expiresAt": "2030-01-02T03:04:05Z",
        },
    ),
    (
        "keys create loader --scope publish --requests-per-second 500 --bytes-per-second 1000000",
        "POST",
        "/v1/keys",
        {"name": "loader", "scopes": ["publish"], "requestsPerSecond": 500, "bytesPerSecond": 1_000_000},
    ),
    (
        "keys create loader --scope publish --requests-per-second 0 --bytes-per-second 0",
        "POST",
        "/v1/keys",
        {"name": "loader", "scopes": ["publish"], "requestsPerSecond": 0, "bytesPerSecond": 0},
    ),
]


@pytest.mark.parametrize(("line", "method", "target", "body"), CALLS, ids=[call[0] for call in CALLS])
def test_a_command_makes_its_call(logpost: Logpost, line: str, method: str, target: str, body: object) -> None:
    with answering(Answer({"ok": True})) as stub:
        result = logpost(*line.split(), url=stub.url)
    assert (result.exit_code, result.stderr) == (0, "")
    (asked,) = stub.asked
    assert (asked.method, asked.target) == (method, target)
    assert (asked.json if asked.body else None) == body


def test_a_rate_that_is_none_is_refused_before_any_call(logpost: Logpost) -> None:
    with answering() as stub:
        for rate in ("-1", "many"):
            result = logpost("keys", "create", "a", "--scope", "publish", "--requests-per-second", rate, url=stub.url)
            assert (result.exit_code, "--requests-per-second" in result.stderr) == (2, True)
    assert stub.asked == []


def test_a_list_follows_its_pages_and_prints_a_line_for_each_item(logpost: Logpost) -> None:
    pages = [
        Answer({"items": [{"name": "a"}, {"name": "b"}], "nextCursor": "x=/&"}),
        Answer({"items": [{"name": "c"}], "nextCursor": None}),
    ]
    with answering(*pages) as stub:
        result = logpost("topics", "list", "--tag", "eu", url=stub.url)
    assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == ["a", "b", "c"]
    assert [asked.target for asked in stub.asked] == [
        "/v1/topics?tag=eu&limit=100",
        "/v1/topics?tag=eu&limit=100&cursor=x%3D%2F%26",
    ]


def test_a_list_with_a_limit_asks_for_no_more(logpost: Logpost) -> None:
    with answering(Answer({"items": [{"name": "a"}], "nextCursor": "more"})) as stub:
        result = logpost("groups", "list", "orders", "--limit", "1", url=stub.url)
    assert result.stdout == '{"name": "a"}\n'
    assert [asked.target for asked in stub.asked] == ["/v1/topics/orders/groups?limit=1"]


def test_names_are_escaped_and_never_lead_elsewhere(logpost: Logpost) -> None:
    with answering() as stub:
        logpost("topics", "show", "a/b?c", url=stub.url)
        refused = logpost("topics", "delete", "..", url=stub.url)
    assert [asked.target for asked in stub.asked] == ["/v1/topics/a%2Fb%3Fc"]
    assert refused.exit_code == 1


def test_the_key_is_sent_as_a_bearer_token(logpost: Logpost) -> None:
    with answering() as stub:
        logpost("topics", "show", "a", url=stub.url, key="secret")
        logpost("topics", "show", "a", "--key", "other", url=stub.url, key="secret")
        logpost("publish", "a", "{}", "--key", "k", "--api-key", "third", url=stub.url)
        logpost("topics", "show", "a", url=stub.url)
    assert [asked.headers.get("authorization") for asked in stub.asked] == [
        "Bearer secret",
        "Bearer other",
        "Bearer third",
        None,
    ]


def test_a_problem_is_one_line_on_stderr_and_exit_code_1(logpost: Logpost) -> None:
    faults = [{"field": "topic", "reason": "no such topic"}]
    answer = refusal(404, "topic_not_found", "There is no topic named 'orders'.", errors=faults)
    with answering(answer) as stub:
        result = logpost("topics", "show", "orders", url=stub.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "logpost: topic_not_found: There is no topic named 'orders'.\n"


def test_every_fault_of_a_problem_is_told(logpost: Logpost) -> None:
    faults = [{"reason": "must be positive", "field": "retries.max"}, {"reason": "is required", "path": "/id"}]
    answer = refusal(422, "invalid_field", "retries.max: must be positive", errors=faults)
    with answering(answer) as stub:
        result = logpost("groups", "declare", "orders", "billing", url=stub.url)
    assert result.stderr == "logpost: invalid_field: retries.max: must be positive | /id: is required\n"


def test_an_answer_of_another_server_is_told_by_its_status(logpost: Logpost) -> None:
    with answering(Answer(b"<html>Bad Gateway</html>", 502)) as stub:
        result = logpost("topics", "show", "orders", url=stub.url)
    assert (result.exit_code, result.stderr) == (1, "logpost: http_502: the server answered 502\n")


def test_a_list_of_another_server_is_told(logpost: Logpost) -> None:
    with answering(Answer(b"<html></html>")) as stub:
        result = logpost("topics", "list", url=stub.url)
    assert result.exit_code == 1
    assert result.stderr.startswith("logpost: the answer is not what a Logpost server gives")


def test_a_server_that_is_not_there_is_told(logpost: Logpost) -> None:
    with answering() as stub:
        url = stub.url
    result = logpost("topics", "list", url=url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"logpost: no server can be reached at {url}")
    assert result.stderr.count("\n") == 1


def test_a_proxy_is_not_asked_for_this_machine(logpost: Logpost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with answering() as stub:
        assert logpost("topics", "show", "orders", url=stub.url).exit_code == 0


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://[", "http://a b/", ""])
def test_an_address_that_is_none_is_told(logpost: Logpost, url: str) -> None:
    result = logpost("topics", "list", "--url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith("logpost: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        "groups seek orders billing",
        "groups seek orders billing latest --offset 3",
        "groups declare orders billing --pull --push-url http://x",
        "topics declare orders --config []",
        "topics declare orders --config {",
        "topics declare orders --config @/nowhere",
        "publish orders {} --file x",
        "publish orders {} --key-field id",
    ],
)
def test_what_cannot_be_meant_is_refused_without_a_call(logpost: Logpost, line: str) -> None:
    with answering() as stub:
        result = logpost(*line.split(), url=stub.url)
    assert result.exit_code == 2
    assert not stub.asked


def test_the_help_of_a_client_command_costs_no_server_library() -> None:
    code = (
        "import sys; from app.cli import main\n"
        "try: main(['publish', '--help'])\n"
        "except SystemExit: print([name for name in ('httpx', 'pydantic', 'rich', 'fastapi') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
