"""Who calls, and what they may do. The one question every way in asks before it looks at anything else.

With a root key (``LOGPOST_ROOT_KEY``) every caller presents a key, ``Authorization: Bearer lp_…``, and is in the
namespace of that key. The root key may do everything and says which namespace it means by ``Logpost-Project`` and
``Logpost-Environment``. Without one there are no keys, and every caller is what the root key would be.

The order of refusals tells nobody anything: first the key (401), then whether it asks too often (429), then what it may
do at all and for a topic of that name (403), existing or not, and only then whether something is there (404).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

from app.broker.keys import Keyring
from app.broker.quotas import Quotas
from app.domain.errors import Forbidden, InvalidField, NotFound, TopicNotFound, Unauthorized
from app.domain.key import EVERYTHING, TRACE, Key, allows
from app.domain.names import Namespace, check_name
from app.storage.database import Database
from app.storage.namespaces import namespace_of
from app.telemetry import CALLER

Scope = Literal["publish", "consume", "manage"]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
# As ASGI has them: names in lower case.
RawHeaders = Iterable[tuple[bytes, bytes]]

AUTHORIZATION, PROJECT, ENVIRONMENT = b"authorization", b"logpost-project", b"logpost-environment"
LOOKED_AT = frozenset({AUTHORIZATION, PROJECT, ENVIRONMENT})
MAX_NAMESPACES = MAX_CALLERS = 10_000
ROOT = "root"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: everything they name is a name in ``namespace``.

    ``key`` is None for the root key, and for everybody where there are no keys. ``elsewhere``: the request speaks of
    another namespace than the key's, where the caller finds nothing.
    """

    namespace: Namespace
    key: Key | None = None
    elsewhere: bool = False

    @property
    def id(self) -> str:
        return ROOT if self.key is None else self.key.id

    @property
    def prefix(self) -> str | None:
        """Of the caller's key."""
        return None if self.key is None else self.key.prefix

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of the topics the caller may see."""
        return (EVERYTHING,) if self.key is None else self.key.patterns

    def may(self, scope: Scope | None, topic: str | None = None) -> bool:
        """Whether the caller has ``scope`` for ``topic``. Without a scope: may read names, configuration and lag."""
        key = self.key
        if key is None:
            return True
        if scope is not None and scope not in key.rights:
            return False
        return topic is None or EVERYTHING in key.patterns or allows(key.patterns, topic)

    def require(self, scope: Scope | None, topic: str | None = None) -> None:
        """Raises Forbidden, which says nothing of whether the topic exists; NotFound in a foreign namespace."""
        if not self.may(scope, topic):
            raise Forbidden(
                f"This key may not {scope or 'read'} here." if self.may(scope) else f"This key has no scope {scope!r}."
            )
        if self.elsewhere:
            raise NotFound("There is no such namespace.") if topic is None else TopicNotFound.named(topic)

    def require_root(self) -> None:
        """Raises Forbidden for everybody but the root key."""
        if self.key is not None:
            raise Forbidden("Only the root key manages keys.")


class Gate:
    """Tells callers by their headers. One per process. ``root_key``: None switches keys off."""

    def __init__(
        self, db: Database, quotas: Quotas, *, project: str, environment: str, root_key: str | None = None
    ) -> None:
        self._db = db
        self._quotas = quotas
        self._home = (project.encode(), environment.encode())
        self._root = None if root_key is None else hashlib.sha256(root_key.encode()).digest()
        self.keyring = Keyring(db)
        self._namespaces: dict[tuple[bytes, bytes], Caller] = {}
        self._callers: dict[bytes, Caller] = {}

    @property
    def has_keys(self) -> bool:
        return self._root is not None

    async def authenticate(self, headers: RawHeaders, query: bytes = b"") -> Caller:
        """Raises Unauthorized, RateLimited, InvalidField for the name of a namespace, DatabaseUnavailable."""
        found = {name: value for name, value in headers if name in LOOKED_AT}
        if self._root is None:
            return await self._whoever(found)
        if b"lp_" in query and TRACE.search(query):
            raise Unauthorized("A key in a URL ends up in logs: send it as Authorization: Bearer, and revoke this one.")
        presented = _bearer(found.get(AUTHORIZATION))
        digest = hashlib.sha256(presented).digest()
        key = self.keyring.believed(digest)
        if key is None:
            if hmac.compare_digest(digest, self._root):
                CALLER.set(ROOT)
                return await self._whoever(found)
            key = await self.keyring.verify(presented.decode(errors="surrogateescape"), digest)
        caller = self._caller(digest, key)
        CALLER.set(caller.id)
        if self._quotas.rate_of(key, "requests"):
            await self._quotas.take(key, "requests", 1)
        if len(found) > 1 and _is_elsewhere(found, key.namespace):
            return Caller(key.namespace, key, elsewhere=True)
        return caller

    def known(self, authorization: bytes | None) -> Caller | None:
        """Who calls in their own namespace, where nobody has to be asked for it; else ``authenticate`` tells, or why
        not. For requests with none of the other headers that are looked at."""
        if self._root is None:
            return self._namespaces.get(self._home)
        try:
            digest = hashlib.sha256(_bearer(authorization)).digest()
        except Unauthorized:
            return None
        key = self.keyring.believed(digest)
        return None if key is None else self._caller(digest, key)

    def spend(self, caller: Caller, size: int) -> bool:
        """Counts a request of a ``known`` caller with a body of so many bytes, where nobody has to be asked for it."""
        return caller.key is None or self._quotas.spend(caller.key, {"requests": 1, "bytes": size})

    async def admit(self, headers: RawHeaders, scope: Scope, topic: str) -> Caller:
        """A caller who has ``scope``. Raises Unauthorized, RateLimited, Forbidden."""
        caller = await self.authenticate(headers)
        caller.require(scope, topic)
        return caller

    async def admit_to_lane(self, scope: MutableMapping[str, Any], right: Scope, topic: str) -> Caller:
        """For the fast lane: a caller who has ``right``. Raises Unauthorized, RateLimited, Forbidden."""
        caller = await self.authenticate(scope["headers"], scope["query_string"])
        caller.require(right, topic)
        return caller

    def metered(self, caller: Caller, receive: Receive) -> Receive:
        """``receive`` of a request, which raises RateLimited in place of the end of a body that is too much for the
        caller's key, or sooner where it is for sure. Counts what comes, whatever Content-Length says."""
        key = caller.key
        if key is None or not self._quotas.rate_of(key, "bytes"):
            return receive
        size, has_ended = 0, False

        async def metered() -> Message:
            nonlocal size, has_ended
            message = await receive()
            if has_ended or message["type"] != "http.request":
                return message
            size += len(message.get("body", b""))
            if message.get("more_body", False):
                self._quotas.foresee(key, "bytes", size)
            else:
                has_ended = True
                await self._quotas.take(key, "bytes", size)
            return message

        return metered

    async def namespace(self, project: str, environment: str) -> Namespace:
        """The namespace of these names, which exists from now on."""
        return (await self._in_namespace(project.encode(), environment.encode())).namespace

    def _caller(self, digest: bytes, key: Key) -> Caller:
        """Made once for every time that the key is read."""
        caller = self._callers.get(digest)
        if caller is None or caller.key is not key:
            if len(self._callers) >= MAX_CALLERS:
                self._callers.clear()
            caller = self._callers[digest] = Caller(key.namespace, key)
        return caller

    async def _whoever(self, found: dict[bytes, bytes]) -> Caller:
        """A caller who may do everything, in the namespace they name."""
        names = (found.get(PROJECT, self._home[0]), found.get(ENVIRONMENT, self._home[1]))
        return self._namespaces.get(names) or await self._in_namespace(*names)

    async def _in_namespace(self, project: bytes, environment: bytes) -> Caller:
        known = self._namespaces.get((project, environment))
        if known is not None:
            return known
        names = (
            _name("Logpost-Project", project),
            _name("Logpost-Environment", environment),
        )
        caller = Caller(await namespace_of(self._db, *names))
        if len(self._namespaces) >= MAX_NAMESPACES:
            self._namespaces.clear()
        self._namespaces[project, environment] = caller
        return caller


def _bearer(value: bytes | None) -> bytes:
    if value is None:
        raise Unauthorized("This needs a key: Authorization: Bearer lp_…")
    scheme, _, presented = value.partition(b" ")
    presented = presented.strip(b" ")
    if scheme.lower() != b"bearer" or not presented:
        raise Unauthorized("The key has to come as Authorization: Bearer lp_…")
    return presented


def _name(header: str, value: bytes) -> str:
    try:
        return check_name(header, value.decode("ascii"))
    except UnicodeDecodeError:
        raise InvalidField.of(header, "must be ASCII") from None


def _is_elsewhere(found: dict[bytes, bytes], namespace: Namespace) -> bool:
    return (
        found.get(PROJECT, namespace.project.encode()) != namespace.project.encode()
        or found.get(ENVIRONMENT, namespace.environment.encode()) != namespace.environment.encode()
    )
