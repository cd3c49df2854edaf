"""A headless Chromium, driven over its own DevTools protocol: a WebSocket and JSON, no driver to install."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.servers import PATIENCE_S, wait_until

BINARY = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip


class Page:
    """One tab. ``run`` evaluates an expression in it, a promise's value once it is there."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)

    async def call(self, method: str, **params: Any) -> Any:
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_S):
            while (answer := json.loads((await self._socket.receive()).data)).get("id") != number:
                pass
        assert "error" not in answer, answer
        return answer["result"]

    async def run(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    async def until(self, expression: str) -> None:
        await wait_until(lambda: self.run(expression))

    async def click(self, selector: str) -> None:
        """A real click, in the middle of what is there."""
        box = await self.run(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}); box.scrollIntoView();"
            " const at = box.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def type(self, selector: str, text: str) -> None:
        await self.run(f"document.querySelector({json.dumps(selector)}).select()")
        await self.call("Input.insertText", text=text)


@asynccontextmanager
async def browser(directory: Path) -> AsyncIterator[Page]:
    """A browser with one tab, its profile in ``directory``."""
    assert BINARY is not None
    process = await asyncio.create_subprocess_exec(
        BINARY, *FLAGS, f"--user-data-dir={directory}", "about:blank", stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        port_file = directory / "DevToolsActivePort"
        await wait_until(lambda: port_file.exists() and len(port_file.read_text().split()) == 2)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                tab = next(tab for tab in await answer.json() if tab["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                await page.call("Page.enable")
                yield page
    finally:
        process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
