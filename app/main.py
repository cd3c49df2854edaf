"""The composition root: settings → database → broker → loops → the ASGI application.

The application is one ASGI callable. Everything that needs a running event loop is made in its lifespan and hangs on
``app.state`` of the FastAPI application, where ``api/dependencies.py`` finds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from app.api import health
from app.api.problems import install_problems
from app.settings import Settings
from app.storage.database import Database


def create_app(settings: Settings, dsn: str) -> ASGIApp:
    """The application on the database at ``dsn``, which has been migrated. It serves once its lifespan has begun."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = await Database.open(dsn, pool_size=settings.database_pool_size)
        app.state.database = database
        try:
            yield
        finally:
            await database.close()

    app = FastAPI(title="Logpost", lifespan=lifespan)
    install_problems(app)
    app.include_router(health.router)
    return app
