"""Secrets at rest: AES-256-GCM under keys that the database does not have (LOGPOST_SECRET_KEYS).

Stored is ``enc:v1:<key id>:<base64 of nonce and ciphertext>``. What a secret is for goes into its authentication, so
that a ciphertext opens nowhere but in its own row: copied to another group it is as useless as to a thief. Without
keys secrets are stored as they are, and whatever was stored so stays readable.

Against whom: who reads a dump, a backup or a replica. Who writes to the database can have things sent elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.domain.errors import SecretUnreadable
from app.domain.secret import Sealed

SETTING = "LOGPOST_SECRET_KEYS"
PREFIX = "enc:"
ENCRYPTED = "enc:v1:"
# A secret that was stored as it is, though it looks like an encrypted one: nobody passes off one for the other.
PLAIN = "enc:v0:"
KEY_BYTES = 32
NONCE_BYTES = 12

# What a secret is of: "group", the id of its topic, its name, "secret", and the like.
Place = tuple[str | int, ...]
# Vault.seal or Vault.open.
Change = Callable[[str, Place], str]


class Vault:
    """``keys``: the newest first, which encrypts; all decrypt. Each is the base64 of 32 bytes, or a text of 32
    characters or more."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        made = [_key(text) for text in keys]
        self._ciphers = {key_id(key): AESGCM(key) for key in made}
        self.newest = key_id(made[0]) if made else None

    @property
    def newest_prefix(self) -> str:
        """How everything begins that need not be encrypted again; empty if nothing is encrypted."""
        return "" if self.newest is None else f"{ENCRYPTED}{self.newest}:"

    def seal(self, secret: str, place: Place) -> str:
        """The text to store. Raises SecretUnreadable for a sealed one that is to be stored elsewhere."""
        if isinstance(secret, Sealed):
            if secret.place != place:
                raise SecretUnreadable(secret.reason)
            return str(secret)
        if self.newest is None:
            return PLAIN + secret if secret.startswith(PREFIX) else secret
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = self._ciphers[self.newest].encrypt(nonce, secret.encode(), _authenticated(place))
        return f"{ENCRYPTED}{self.newest}:{base64.b64encode(nonce + ciphertext).decode()}"

    def open(self, stored: str, place: Place) -> str:
        """The secret; a ``Sealed`` if it cannot be read here, so that whatever does not need it goes on."""
        if not stored.startswith(PREFIX):
            return stored
        if stored.startswith(PLAIN):
            return stored.removeprefix(PLAIN)
        name, _, encoded = stored.removeprefix(ENCRYPTED).partition(":")
        cipher = self._ciphers.get(name) if stored.startswith(ENCRYPTED) else None
        if cipher is None:
            known = f"its key, {name[:16]!r}, is not among {SETTING}" if encoded else "it is of an unknown form"
            return Sealed.of(stored, place=place, reason=f"A secret of {_named(place)} cannot be read: {known}.")
        try:
            sealed = base64.b64decode(encoded, validate=True)
            return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _authenticated(place)).decode()
        except (InvalidTag, binascii.Error, ValueError):
            reason = f"A secret of {_named(place)} cannot be read: it was changed, or moved there from elsewhere."
            return Sealed.of(stored, place=place, reason=reason)

    def reseal(self, stored: str, place: Place) -> str:
        """What is stored, under the newest key; as it is if it is so already, or cannot be read."""
        if stored.startswith(self.newest_prefix):
            return stored
        return self.seal(self.open(stored, place), place)


NO_KEYS = Vault()


def key_id(key: bytes) -> str:
    """Eight characters that tell keys apart and nothing of a key."""
    return hmac.digest(key, b"logpost secret key id", hashlib.sha256)[:4].hex()


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) == KEY_BYTES:
        return key
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"logpost secrets at rest").derive(text.encode())


def _authenticated(place: Place) -> bytes:
    return json.dumps(["logpost", *place]).encode()


def _named(place: Place) -> str:
    """``group 'billing'``: what people call it."""
    kind, _, name = place[:3]
    return f"{kind} {name!r}"
