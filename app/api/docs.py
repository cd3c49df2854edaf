"""``/openapi.json``, and ``/docs``: the page to look at it and try things out. They hold no data."""

from __future__ import annotations

import orjson
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

from app.api.openapi import document_of

# The page loads Swagger UI from where FastAPI has it; nothing else may run in it, and it may call only us.
CDN = "https://cdn.jsdelivr.net"
DOCS_POLICY = (
    f"default-src 'none'; script-src {CDN} 'unsafe-inline'; style-src {CDN} 'unsafe-inline'; "
    f"img-src 'self' data: https://fastapi.tiangolo.com; connect-src 'self'; font-src {CDN}; frame-ancestors 'none'"
)


def install_docs(app: FastAPI) -> None:
    """``/openapi.json``, made at the first call, and ``/docs``."""
    made: list[bytes] = []

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        if not made:
            made.append(orjson.dumps(document_of(app)))
        return Response(made[0], media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="openapi.json", title="Logpost", swagger_ui_parameters={"docExpansion": "list"}
        )
        page.headers["content-security-policy"] = DOCS_POLICY
        return page
