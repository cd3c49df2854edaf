"""The ordinary part of the API: every route, on FastAPI, with its errors and its documentation."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from app.api import (
    dead_letters,
    deliveries,
    groups,
    health,
    keys,
    live,
    messages,
    metrics,
    pause,
    probe,
    published,
    seek,
    settled,
    stats,
    streams,
    tickets,
    topics,
)
from app.api.docs import install_docs
from app.api.methods import Methods
from app.api.problems import install_problems

ROUTERS = (
    topics.router, published.router, messages.router, groups.router, stats.router, pause.router, seek.router,
    probe.router, settled.router, streams.router, tickets.router, deliveries.router, dead_letters.router, keys.router,
    metrics.router, live.router, health.router,
)  # fmt: skip


def application(*, lifespan: Any = None, docs: bool = True) -> FastAPI:
    """``lifespan`` has to set ``app.state.parts`` (api/dependencies.py) before the first request."""
    app = FastAPI(
        title="Logpost", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    install_problems(app)
    for router in ROUTERS:
        app.include_router(router)
    if docs:
        install_docs(app)
    app.add_middleware(Methods, routes=[*(route for router in ROUTERS for route in router.routes), *app.routes])
    return app
