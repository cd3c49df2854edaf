"""``/metrics``: counters for Prometheus. Needs a key where there are keys; any will do, it has nobody's names in it."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from app import metrics
from app.api.problems import problems
from app.api.route import Route

router = APIRouter(tags=["operations"], route_class=Route)


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(401)},
)
async def read() -> Response:
    """Of this replica, all its workers together."""
    return Response(await asyncio.to_thread(metrics.render), headers={"content-type": metrics.CONTENT_TYPE})
