"""What surrounds the server: its dependencies, its role in the database, its pages; and the list of attacks itself."""

from __future__ import annotations

import re
import tomllib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from app.storage.migrate import migrate
from tests.app_client import serving
from tests.push.world import TOPIC
from tests.servers import ROOT

PAGE = ROOT / "app" / "api" / "page"
README = ROOT / "tests" / "security" / "README.md"
PIN = re.compile(r"[a-z0-9-]+==[0-9a-z.]+")


def test_s57_the_page_builds_no_markup_out_of_what_it_shows() -> None:
    script, page = (PAGE / "live.js").read_text(), (PAGE / "live.html").read_text()
    for means in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "cookie"):
        assert means not in script
    assert re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|javascript:", page) is None


async def test_s57_pages_run_their_own_scripts_only_and_in_nobodys_frame(dsn: str) -> None:
    async with serving(dsn) as client:
        rules = (await client.get("/live")).headers["content-security-policy"]
        assert "script-src 'self'" in rules
        assert "unsafe" not in rules
        for path in ("/live", "/docs", "/v1/topics"):
            answer = await client.get(path)
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert "set-cookie" not in answer.headers


def test_s60_what_runs_is_what_was_tested() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # What only the benchmark of peers wants is no part of the server, nor of its tests.
    extras = [pins for extra, pins in project["optional-dependencies"].items() if extra != "bench"]
    assert [pin for pins in (project["dependencies"], *extras) for pin in pins if pin not in lines] == []


@pytest.fixture
async def plain_role(dsn: str) -> AsyncIterator[str]:
    """The DSN of an empty database that belongs to a role with no rights of its own."""
    name = f"plain_{urlsplit(dsn).path.strip('/')}"
    admin = await asyncpg.connect(dsn)
    parts = urlsplit(dsn)
    try:
        await admin.execute(f"create role {name} login nosuperuser nocreatedb nocreaterole password 'plain'")
        await admin.execute(f"create database {name} owner {name}")
        _, at, host = parts.netloc.rpartition("@")
        query = re.sub(r"\buser=[^&]*", f"user={name}", parts.query)
        yield urlunsplit(parts._replace(netloc=f"{name}:plain{at or '@'}{host}", path=f"/{name}", query=query))
    finally:
        await admin.execute(f"drop database if exists {name} with (force)")
        await admin.execute(f"drop role if exists {name}")
        await admin.close()


async def test_s61_a_role_that_owns_its_database_and_nothing_else_is_enough(plain_role: str) -> None:
    await migrate(plain_role)
    async with serving(plain_role) as client:
        assert (await client.put(TOPIC)).status_code == 201
        assert (await client.put(f"{TOPIC}/groups/one", json={"startFrom": "earliest"})).status_code == 201
        assert (await client.post(f"{TOPIC}/messages", json=1)).status_code == 201
        assert len((await client.post(f"{TOPIC}/groups/one/pull")).json()["messages"]) == 1
    role = await asyncpg.connect(plain_role)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await role.execute("copy (select 1) to program 'true'")
    finally:
        await role.close()


TEST = re.compile(r"^(?:async )?def test_s(\d\d)_", re.MULTILINE)


def test_every_attack_is_tried_by_its_number_or_said_to_be_open() -> None:
    tried = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        tried |= {int(number) for number in TEST.findall(path.read_text())}
    table = README.read_text()
    said = {int(number) for number in re.findall(r"^\| S(\d+) \|", table, re.MULTILINE)}
    assert said == set(range(1, 63))
    untried = {int(number) for number in re.findall(r"^\| S(\d+) \| \*\*(?:Open|Not here)\*\*", table, re.MULTILINE)}
    assert untried == said - tried
