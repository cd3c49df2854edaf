"""``/live``: a page to watch a topic and to consume a group by hand. It uses nothing but the public API."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response

PAGE = Path(__file__).parent / "page"
TYPES = {"live.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8"}
# Its own script and style, calls to where it came from, and nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {"cache-control": "no-cache", "content-security-policy": POLICY}

router = APIRouter()


@router.get("/live", include_in_schema=False)
async def live() -> Response:
    return Response((PAGE / "live.html").read_bytes(), media_type="text/html; charset=utf-8", headers=HEADERS)


@router.get("/live/{name}", include_in_schema=False)
async def part(name: Literal["live.css", "live.js"]) -> Response:
    return Response((PAGE / name).read_bytes(), media_type=TYPES[name], headers=HEADERS)
