"""Signatures of webhook requests, as Standard Webhooks 1.0.0 says (spec/standard-webhooks.md): version v1.

Signed is ``{webhook-id}.{webhook-timestamp}.{body}`` with HMAC-SHA256; the key is what ``whsec_…`` decodes to. While
a secret is being replaced both sign, in one header, and a receiver takes whichever it knows.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Iterable

from app.domain.errors import InvalidField

PREFIX = "whsec_"
VERSION = "v1"
# The spec's bounds of a secret, in bytes after decoding, and the size of those made here.
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
SECRET_BYTES = 32


def generate_secret() -> str:
    """A new secret as it is shown to people: ``whsec_`` and base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def parse_secret(secret: str, field: str = "secret") -> bytes:
    """The key a secret stands for. Raises InvalidField naming ``field``; the reason never repeats the secret.

    Missing padding is tolerated, as the reference libraries do; anything else that is not standard base64 is not.
    """
    if not secret.startswith(PREFIX):
        raise InvalidField.of(field, f"must start with {PREFIX} followed by base64")
    encoded = secret.removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidField.of(field, f"must be base64 after {PREFIX}") from None
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        reason = f"must decode to {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, not {len(key)}"
        raise InvalidField.of(field, reason)
    return key


def sign(webhook_id: str, timestamp: int, body: bytes, keys: Iterable[bytes]) -> str:
    """The value of ``webhook-signature``: one signature for each key. ``timestamp``: Unix seconds of this attempt."""
    # A dot in the id would let its end pass for a timestamp.
    assert "." not in webhook_id, webhook_id
    signed = b"%b.%d.%b" % (webhook_id.encode(), timestamp, body)
    return " ".join(f"{VERSION},{_signature(key, signed)}" for key in keys)


def verify(webhook_id: str, timestamp: int, body: bytes, header: str, key: bytes) -> bool:
    """Whether any v1 signature of the header is this key's. The age of ``timestamp`` is the receiver's to judge."""
    expected = _signature(key, b"%b.%d.%b" % (webhook_id.encode(), timestamp, body)).encode()
    matches = False
    for item in header.split(" "):
        version, _, signature = item.partition(",")
        # Every signature is compared, in constant time: how long it takes tells nothing.
        matches |= version == VERSION and hmac.compare_digest(signature.encode("utf-8", "replace"), expected)
    return matches


def _signature(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
