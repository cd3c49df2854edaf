"""Namespaces: a row for each (project, environment) pair, made when it is first heard of and never removed."""

from __future__ import annotations

from app.domain.names import Namespace
from app.storage.database import Database

READ = "select id from namespaces where project = $1 and environment = $2"
CREATE = "insert into namespaces (project, environment) values ($1, $2) on conflict do nothing"


async def namespace_of(db: Database, project: str, environment: str) -> Namespace:
    """The namespace of that name, which exists from now on."""
    found = await db.fetchval(READ, project, environment)
    if found is None:
        await db.execute(CREATE, project, environment)
        found = await db.fetchval(READ, project, environment)
    return Namespace(found, project, environment)
