"""Who calls, and what they may do. The one question every way in asks before it looks at anything else.

There are no keys yet: every caller is in the server's own namespace and may do everything. Routes do not know that:
they say what they need (api/route.py), and the fast lane asks the same ``Gate``.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

from app.domain.errors import Forbidden
from app.domain.names import Namespace
from app.storage.database import Database
from app.storage.namespaces import namespace_of

Scope = Literal["publish", "consume", "manage"]
# As ASGI has them: names in lower case.
RawHeaders = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: everything they name is a name in ``namespace``."""

    namespace: Namespace

    def may(self, scope: Scope | None, topic: str | None = None) -> bool:
        """Whether the caller has ``scope`` for ``topic``. Without a scope: may read names, configuration and lag."""
        del scope, topic
        return True

    def require(self, scope: Scope | None, topic: str | None = None) -> None:
        """Raises Forbidden, and says nothing of whether the topic exists."""
        if not self.may(scope, topic):
            raise Forbidden(f"This key may not {scope or 'read'} here.")


class Gate:
    """Tells callers by their headers. One per process."""

    def __init__(self, db: Database, *, project: str, environment: str) -> None:
        self._db = db
        self._project = project
        self._environment = environment
        self._everybody: Caller | None = None

    async def authenticate(self, headers: RawHeaders) -> Caller:
        """Raises Unauthorized, and DatabaseUnavailable while the database is away at the first call."""
        del headers
        if self._everybody is None:
            self._everybody = Caller(await namespace_of(self._db, self._project, self._environment))
        return self._everybody

    async def admit(self, headers: RawHeaders, scope: Scope, topic: str) -> int:
        """The namespace's id of a caller who has ``scope``. Raises Unauthorized, Forbidden."""
        caller = await self.authenticate(headers)
        caller.require(scope, topic)
        return caller.namespace.id

    async def namespace_id(self, scope: MutableMapping[str, Any], right: Scope, topic: str) -> int:
        """For the fast lane: the id of the caller's namespace. Raises Unauthorized, Forbidden."""
        caller = await self.authenticate(scope["headers"])
        caller.require(right, topic)
        return caller.namespace.id
