"""A disk that is full, of the data and of the WAL: it is said so, nothing acknowledged is lost, and it passes."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import Servers, wait_until

TOPIC = "/v1/topics/orders"
SIZE = "size=200m"
LARGE = secrets.token_hex(200_000)  # does not compress away


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[None]:
    place.mkdir(mode=0o711, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"{SIZE},mode=0711", "none", str(place)]
    mounted = subprocess.run(mount, capture_output=True)  # noqa: PLW1510 - looked at below
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode(errors='replace').strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def move(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--archive", f"{source}/.", target], check=True)  # owners too


def fill(place: Path) -> Path:
    """A file that takes all that is left."""
    ballast = place / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"\0" * 65536) == 65536:
            pass
    return ballast


async def everything(client: httpx.AsyncClient) -> list[str]:
    found: list[str] = []
    query = {"limit": "1000"}
    while True:
        page = (await client.get(f"{TOPIC}/messages", params=query)).json()
        found += [item["message"]["n"] for item in page["items"]]
        if page["nextCursor"] is None:
            return found
        query["cursor"] = page["nextCursor"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("full", ["data", "wal"])
async def test_a_full_disk_is_told_and_passes_and_costs_nothing_that_was_acknowledged(
    full: str, tmp_path: Path, servers: Servers
) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    data, cluster = tmp_path / "data", tmp_path / "data" / "postgres"
    with small_disk(data), contextlib.ExitStack() as disks:
        first = await servers.start(data_dir=data)
        await first.stop()
        wal = cluster / "pg_wal"
        move(wal, kept := tmp_path / "kept")
        disks.enter_context(small_disk(wal))
        move(kept, wal)
        server = await servers.start(data_dir=data)
        acknowledged: list[str] = []

        async def publish(text: str) -> int:
            headers = {"idempotency-key": text}
            try:
                answer = await client.post(f"{TOPIC}/messages", json={"n": text, "pad": LARGE}, headers=headers)
            except httpx.TransportError:
                return 0
            if answer.is_success:
                acknowledged.append(text)
            else:
                assert answer.status_code in (503, 507), answer.text
                assert answer.headers["content-type"] == "application/problem+json"
            return answer.status_code

        async with httpx.AsyncClient(base_url=server.url, timeout=90) as client:
            await client.put(TOPIC, json={"distribution": {"partitions": 1}})
            for number in range(5):
                await publish(f"before {number}")
            assert len(acknowledged) == 5
            ballast = fill(wal if full == "wal" else data)
            refused = 0
            for number in range(200):
                refused += await publish(f"full {number}") in (503, 507)
                if refused == 3:
                    break
            assert refused == 3
            assert server.process.poll() is None

            ballast.unlink()

            async def works() -> bool:
                return await publish(f"after {len(acknowledged)}") in (200, 201)

            await wait_until(works)
            found = await everything(client)
            assert set(acknowledged) <= set(found)
            assert len(found) == len(set(found))
        assert await server.stop() == 0
