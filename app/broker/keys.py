"""Keys as one process knows them: verified without the database most of the time, and never for long after the end.

A key that was found good is believed for FRESH_S, then looked up again by the first who presents it; the others go on
meanwhile, at most until STALE_S. So a key that was revoked, or has expired, is refused everywhere within STALE_S, and
a call costs a hash and a look into a dictionary. What outlives a call, a stream, asks ``ended`` now and then.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.errors import KeyNotFound, LimitReached, Unauthorized
from app.domain.key import Key, NewKey, Right, generate_key, prefix_in_id, prefix_of
from app.domain.names import Namespace
from app.storage import keys
from app.storage.database import Database
from app.telemetry import log

FRESH_S = 2.0
STALE_S = 4.0
MAX_KNOWN = 10_000
# Look-ups at a time: whoever floods us with invented keys gets no more of the database than this.
MAX_LOOKUPS = 3


@dataclass(slots=True)
class Known:
    key: Key
    read_at: float
    reading: bool = False


class Keyring:
    """One per process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[bytes, Known] = {}
        self._used: set[str] = set()
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS)

    async def verify(self, presented: str, digest: bytes) -> Key:
        """The key that was presented, read anew. Raises Unauthorized, DatabaseUnavailable."""
        known = self._known.get(digest)
        prefix = prefix_of(presented)
        if prefix is None:
            raise Unauthorized("That is not a whole key: its form or its checksum is wrong.")
        if known is not None:
            known.reading = True
        key = await self._read(digest, prefix)
        self._used.add(prefix)
        return key

    def believed(self, digest: bytes) -> Key | None:
        """The key of this digest, where it was found good a moment ago; ``verify`` finds out."""
        known = self._known.get(digest)
        if known is None:
            return None
        age = asyncio.get_running_loop().time() - known.read_at
        if age >= FRESH_S and not (known.reading and age < STALE_S):
            return None
        self._used.add(known.key.prefix)
        return known.key

    async def _read(self, digest: bytes, prefix: str) -> Key:
        started = asyncio.get_running_loop().time()
        try:
            async with self._lookups:
                found = await keys.read_valid(self._db, prefix)
            if found is None or not hmac.compare_digest(found[0], digest):
                raise Unauthorized("This key is not one of ours, has expired or was revoked.")
        except BaseException:
            self._known.pop(digest, None)
            raise
        if len(self._known) >= MAX_KNOWN:
            self._known.pop(next(iter(self._known)))
        self._known[digest] = Known(found[1], started)
        return found[1]

    def forget(self, prefix: str) -> None:
        """It is looked up before it is believed again, in this process."""
        for digest in [digest for digest, known in self._known.items() if known.key.prefix == prefix]:
            del self._known[digest]

    async def ended(self, prefixes: set[str]) -> set[str]:
        """Those of these prefixes whose keys were revoked or have expired. Calls with them are refused from now on.
        Raises DatabaseUnavailable."""
        if not prefixes:
            return set()
        ended = prefixes - await keys.still_valid(self._db, sorted(prefixes))
        for prefix in ended:
            self.forget(prefix)
        return ended

    async def note_used_once(self) -> bool:
        """Writes down which keys were used since the last time. False: there is never more to do at once."""
        used, self._used = self._used, set()
        if used:
            await keys.set_used(self._db, sorted(used))
        return False


async def create_key(
    db: Database,
    namespace: Namespace,
    *,
    name: str,
    rights: Sequence[Right],
    patterns: Sequence[str],
    expires_at: datetime | None,
    requests_per_s: int | None,
    bytes_per_s: int | None,
    most: int,
) -> tuple[NewKey, Key]:
    """The key itself, which nobody will ever see again, and what is kept of it. Raises LimitReached."""
    made = generate_key()
    kept = await keys.insert_key(
        db, made.prefix, made.digest, namespace.id,
        name=name, rights=rights, patterns=patterns, expires_at=expires_at,
        requests_per_s=requests_per_s, bytes_per_s=bytes_per_s, most=most,
    )  # fmt: skip
    if kept is None:
        raise LimitReached.of("keys", most, "LOGPOST_MAX_KEYS")
    return made, kept


async def read_key(db: Database, key_id: str) -> Key:
    """Raises KeyNotFound, whatever the id looks like."""
    prefix = prefix_in_id(key_id)
    key = None if prefix is None else await keys.read_key(db, prefix)
    if key is None:
        raise KeyNotFound.of(key_id)
    return key


async def revoke_key(db: Database, keyring: Keyring, key_id: str) -> None:
    """The key is refused by this process at once, by every other within STALE_S. Raises KeyNotFound."""
    prefix = prefix_in_id(key_id)
    if prefix is None or not await keys.delete_key(db, prefix):
        raise KeyNotFound.of(key_id)
    keyring.forget(prefix)
    log.info("key_revoked", key=key_id)
