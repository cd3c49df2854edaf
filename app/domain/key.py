"""API keys: ``lp_<prefix>_<secret>_<checksum>``, what one may do, and which topics its patterns allow.

The prefix finds the key and is no secret: it is also the end of the key's id. The secret has 190 bits of chance, so a
plain SHA-256 of the whole key is enough to keep of it: there is nothing to guess that a slow hash would protect. The
checksum tells a typo or half a key from a wrong one without asking the database, and lets scanners of leaked secrets
recognise a key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.domain.errors import InvalidField
from app.domain.names import Namespace

Right = Literal["publish", "consume", "manage"]
RIGHTS: tuple[Right, ...] = ("publish", "consume", "manage")

ALPHABET = string.digits + string.ascii_letters
PREFIX_LENGTH = 12
SECRET_LENGTH = 32
CHECKSUM_LENGTH = 6
KEY = re.compile(
    rf"lp_([0-9A-Za-z]{{{PREFIX_LENGTH}}})_([0-9A-Za-z]{{{SECRET_LENGTH}}})_([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)
# What looks like a key or a good part of one, wherever it may not be.
TRACE = re.compile(rb"lp_[0-9A-Za-z]{%d}_[0-9A-Za-z]{8}" % PREFIX_LENGTH)
ID = re.compile(rf"key_([0-9A-Za-z]{{{PREFIX_LENGTH}}})")

EVERYTHING = "*"
_PATTERN = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._*-]{0,127}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: ``text`` is shown once, ``prefix`` and ``digest`` are kept."""

    text: str
    prefix: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept. It has no secret."""

    prefix: str
    namespace: Namespace
    name: str
    rights: frozenset[Right]
    patterns: tuple[str, ...]
    expires_at: datetime | None
    created_at: datetime
    last_used_at: datetime | None
    requests_per_s: int | None = None
    """In place of the server's; 0 is no limit, None the server's. So is ``bytes_per_s``."""
    bytes_per_s: int | None = None

    @property
    def id(self) -> str:
        return f"key_{self.prefix}"


def generate_key() -> NewKey:
    prefix, secret = _chance(PREFIX_LENGTH), _chance(SECRET_LENGTH)
    text = f"lp_{prefix}_{secret}"
    text = f"{text}_{_checksum(text)}"
    return NewKey(text, prefix, digest_of(text))


def digest_of(presented: str) -> bytes:
    return hashlib.sha256(presented.encode(errors="surrogateescape")).digest()


def prefix_of(presented: str) -> str | None:
    """The prefix of a key that is whole; None for anything else."""
    found = KEY.fullmatch(presented)
    if found is None or _checksum(presented[: -CHECKSUM_LENGTH - 1]) != found[3]:
        return None
    return found[1]


def prefix_in_id(key_id: str) -> str | None:
    found = ID.fullmatch(key_id)
    return None if found is None else found[1]


def check_pattern(pattern: str, field: str) -> str:
    """A topic's name in which every ``*`` stands for any characters or none. Raises InvalidField."""
    if _PATTERN.fullmatch(pattern) is None:
        raise InvalidField.of(field, "must be a topic's name, in which * stands for any characters")
    return pattern


def allows(patterns: Iterable[str], topic: str) -> bool:
    """Whether one of the patterns is the topic's. Takes time in proportion to its length, whatever the pattern."""
    return any(_matches(pattern.split("*"), topic) for pattern in patterns)


def _matches(parts: Sequence[str], topic: str) -> bool:
    """The parts of a pattern between its stars, found one after the other, each as early as possible."""
    first, *between = parts
    if not between:
        return topic == first
    last = between.pop()
    if len(topic) < len(first) + len(last) or not (topic.startswith(first) and topic.endswith(last)):
        return False
    at, end = len(first), len(topic) - len(last)
    for part in between:
        at = topic.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _chance(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(text: str) -> str:
    """CRC-32 in base 62. Against typos, not against anybody."""
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
