"""What a real browser makes of the streams and of the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stream.browser import BINARY, Page, browser
from tests.stream.replicas import BILLING, ORDERS, replica

pytestmark = pytest.mark.skipif(BINARY is None, reason="no browser is installed: apt-get install chromium")

LISTEN = f"""
    window.seen = []; window.opened = 0;
    window.source = new EventSource("{ORDERS}/stream");
    source.onopen = () => opened++;
    source.onmessage = (event) => seen.push(JSON.parse(event.data).message);
"""


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with browser(tmp_path / "profile") as page:
        yield page


async def test_an_event_source_reconnects_after_a_restart_and_misses_nothing(dsn: str, page: Page) -> None:
    """Nothing was received when the server went, so all it has to go on from is the position it was given."""
    async with replica(dsn) as one:
        await one.declare(partitions=2)
        port = int(one.url.rpartition(":")[2])
        await page.go(f"{one.url}/live")
        await page.run(LISTEN)
        await page.until("opened === 1")
    async with replica(dsn, port=port) as one:
        await one.publish("a:1", "b:1")
        await page.until("opened >= 2 && seen.length === 2")
        await one.publish("a:2")
        await page.until("seen.length === 3")
        assert sorted(await page.run("seen")) == ["a:1", "a:2", "b:1"]


async def test_the_page_watches_filters_pauses_and_settles_by_clicks(dsn: str, page: Page) -> None:
    async with replica(dsn) as one:
        await one.declare(group={"retries": {"max": 3, "strategy": "fixed", "baseDelay": 1, "maxDelay": 1}})
        await page.go(f"{one.url}/live?topic=orders")
        await page.until("document.querySelector('#light').dataset.state === 'open'")
        await one.publish("a:1", "<img src=x onerror=alert(1)>:2")
        await page.until("document.querySelectorAll('#messages li').length === 2")
        assert await page.run("document.querySelectorAll('#messages img').length") == 0
        assert "a:1" in await page.run("document.querySelector('#messages').innerText")
        await page.click("#pause")
        await one.publish("a:3")
        await page.until("document.querySelector('#waiting').textContent === '1 held back'")
        assert await page.run("document.querySelectorAll('#messages li').length") == 2
        await page.click("#pause")
        await page.until("document.querySelectorAll('#messages li').length === 3")

        await page.type("#group", "billing")
        await page.click("#join")
        await page.until("document.querySelectorAll('#deliveries li').length === 3")
        for verb in ("ack", "discard", "nack"):
            await page.click(f"#deliveries li:first-child [data-verb={verb}]")
            await page.until(f"document.querySelector('#{verb}ed').textContent === '1'")
        await page.until("document.querySelector('#deliveries').innerText.includes('attempt 2 of 4')")
        await page.click("#deliveries li:first-child [data-verb=ack]")
        await page.until("document.querySelector('#acked').textContent === '2'")
        stats = await one.send("GET", f"{BILLING}/stats")
        assert (stats["lag"], stats["acked"], stats["discarded"]) == (0, 2, 1)


async def test_the_page_tells_what_went_wrong(dsn: str, page: Page) -> None:
    async with replica(dsn) as one:
        await page.go(f"{one.url}/live?topic=nowhere")
        await page.until("document.querySelector('#trouble').innerText.includes('nowhere')")
        assert await page.run("document.querySelector('#start').textContent") == "Watch"
