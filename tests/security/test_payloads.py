"""Payloads made to break a parser, a column or a cost: refused, or kept byte for byte."""

from __future__ import annotations

import time

import httpx
import pytest

from app.domain.expression import Context, Verdict, compile_expression
from tests.push.world import TOPIC

PULLED = f"{TOPIC}/groups/pulled"
RULES = [{"rule": "message != 0"}]
SEEING = {"validate": {"schema": {"type": ["array", "object", "string", "number"]}, "rules": RULES}}
FILTERED = {"startFrom": "earliest", "filter": "message != 0"}


async def kept_or_refused(client: httpx.AsyncClient, payload: bytes) -> bool:
    """Publishes it alone and in a batch, and reads it in every way there is. True if it was taken."""
    one = await client.post(f"{TOPIC}/messages", content=payload, headers={"content-type": "application/json"})
    batch = await client.post(
        f"{TOPIC}/messages/batch", content=b'{"messages": [{"message": %b}]}' % payload,
        headers={"content-type": "application/json"},
    )  # fmt: skip
    for answer in (one, batch):
        assert answer.status_code in (201, 400, 422), (payload[:50], answer.text[:200])
    assert one.is_success == batch.is_success, (payload[:50], one.text, batch.text)
    browsed = await client.get(f"{TOPIC}/messages")
    pulled = await client.post(f"{PULLED}/pull")
    assert (browsed.status_code, pulled.status_code) == (200, 200)
    if one.is_success:
        assert payload in browsed.content
    return one.is_success


@pytest.mark.parametrize("looked_at", [False, True], ids=["passed on", "looked at"])
@pytest.mark.parametrize(
    ("payload", "taken"),
    [
        (rb'"a\u0000b"', True),
        (rb'{"\u0000": 1}', True),
        (rb'"\ud800"', None),  # a decoder may refuse it; nothing may break by it
        (rb'"\udc00\ud800"', None),
        (b'"\xff"', False),
        (b'"\xed\xa0\x80"', False),
        (b"NaN", False),
        (b"[Infinity]", False),
        (b"-Infinity", False),
        (b"9" * 5000, None),
        (b"[-0, 1e400, 1E-400]", None),
        (b'{"a": 1, "a": 2}', True),
        (b'"' + b"\\u0041" * 1000 + b'"', True),
        (b"\xef\xbb\xbf1", False),
        (b"1 2", False),
        (b"", False),
    ],
)
async def test_s18_odd_json_is_kept_byte_for_byte_or_refused(
    client: httpx.AsyncClient, payload: bytes, taken: bool | None, looked_at: bool
) -> None:
    await client.put(TOPIC, json=SEEING if looked_at else {})
    await client.put(PULLED, json=FILTERED if looked_at else {"startFrom": "earliest"})
    assert await kept_or_refused(client, payload) in ((True, False) if taken is None else (taken,))


@pytest.mark.parametrize("looked_at", [False, True], ids=["passed on", "looked at"])
async def test_s17_a_number_is_stored_and_sent_as_it_is_written(client: httpx.AsyncClient, looked_at: bool) -> None:
    """As jsonb it would come out with a hundred thousand digits."""
    await client.put(TOPIC, json=SEEING if looked_at else {})
    await client.put(PULLED, json=FILTERED if looked_at else {"startFrom": "earliest"})
    if await kept_or_refused(client, b"[1e100000]"):
        assert len((await client.get(f"{TOPIC}/messages")).content) < 2000


async def test_s19_a_compressed_body_is_refused_by_every_kind_of_call(client: httpx.AsyncClient) -> None:
    await client.put(TOPIC)
    await client.put(PULLED)
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip", "nonsense"):
        for method, path in (
            ("PUT", TOPIC), ("PUT", PULLED), ("POST", f"{TOPIC}/messages"), ("POST", f"{TOPIC}/messages/batch"),
            ("POST", f"{PULLED}/pull"), ("POST", f"{PULLED}/ack"), ("POST", f"{PULLED}/seek"), ("POST", "/v1/keys"),
        ):  # fmt: skip
            answer = await client.request(method, path, content=b"\x1f\x8b", headers={"content-encoding": coding})
            assert answer.status_code == 415, (coding, path)


def test_s45_a_filters_regular_expression_is_matched_in_linear_time() -> None:
    expression = compile_expression("message.matches('^(a+)+$')", "filter", "filter")
    began = time.process_time()
    verdict = expression.judge(Context("a" * 100_000 + "!", None, {}, {}))
    assert verdict is Verdict.NO_MATCH
    assert time.process_time() - began < 1


@pytest.mark.parametrize("text", ["(" * 400 + "true" + ")" * 400, "[" * 400 + "]" * 400 + " == []", "a" + ".a" * 490])
async def test_s47_an_expression_nested_beyond_reason_is_refused(client: httpx.AsyncClient, text: str) -> None:
    await client.put(TOPIC)
    refused = await client.put(PULLED, json={"filter": text})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_expression")
