"""What routes are given, each named once: ``db: Db`` in a route's signature is all it takes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from app.storage.database import Database


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


Db = Annotated[Database, Depends(_database)]
