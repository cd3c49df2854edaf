"""What holds for every request: ids, security headers, other sites' pages."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.app_client import serving

PAGE = "https://app.example.com"


async def test_every_answer_carries_security_headers_and_a_request_id(client: httpx.AsyncClient) -> None:
    ids = set()
    for answer in (await client.get("/livez"), await client.get("/nothing"), await client.put("/v1/topics/a")):
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        ids.add(headers["x-request-id"])
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", each) for each in ids)


async def test_a_request_id_is_taken_over_only_if_it_is_a_plain_word(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez", headers={"x-request-id": "job-7.a_b"})).headers["x-request-id"] == "job-7.a_b"
    for strange in ("a b", '"', "x" * 65, "<script>"):
        assert (await client.get("/livez", headers={"x-request-id": strange})).headers["x-request-id"] != strange


async def test_without_configured_origins_no_page_may_read_anything(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/topics", headers={"origin": PAGE})
    assert "access-control-allow-origin" not in answer.headers
    preflight = await client.options(
        "/v1/topics/a", headers={"origin": PAGE, "access-control-request-method": "PUT"}
    )  # fmt: skip
    assert "access-control-allow-origin" not in preflight.headers


async def test_s54_a_configured_origin_may_call_and_no_other(dsn: str) -> None:
    async with serving(dsn, cors_origins=f"{PAGE}, https://other.example.com") as client:
        asked = {"access-control-request-method": "PUT", "access-control-request-headers": "content-type"}
        preflight = await client.options("/v1/topics/a", headers={"origin": PAGE} | asked)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert "PUT" in preflight.headers["access-control-allow-methods"]
        assert preflight.headers["access-control-allow-headers"] == "content-type"

        answer = await client.put("/v1/topics/a", headers={"origin": PAGE, "sec-fetch-site": "cross-site"})
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]

        for origin in ("https://evil.example", "null", f"{PAGE}.evil.example", PAGE.upper()):
            refused = await client.get("/v1/topics", headers={"origin": origin})
            assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999", "sec-fetch-site": "same-site"},
    ],
    ids=str,
)
async def test_a_page_of_another_site_changes_nothing(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    refused = await client.put("/v1/topics/a", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await client.get("/v1/topics/a")).status_code == 404


async def test_our_own_page_and_programs_are_not_hindered(client: httpx.AsyncClient) -> None:
    for headers in (
        {"origin": "http://localhost", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost"},
        {"sec-fetch-site": "none"},
        {},
    ):
        assert (await client.put("/v1/topics/a", headers=headers)).status_code in (200, 201), headers


async def test_a_foreign_name_for_our_loopback_address_is_refused_while_there_are_no_keys(dsn: str) -> None:
    async with serving(dsn) as client:
        for host in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080", "logpost.localhost"):
            assert (await client.get("/livez", headers={"host": host})).status_code == 200, host
        for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example"):
            assert (await client.get("/v1/topics", headers={"host": host})).status_code == 403, host
    async with serving(dsn, root_key="k" * 32) as client:
        assert (await client.get("/livez", headers={"host": "proxy.example.com"})).status_code == 200
