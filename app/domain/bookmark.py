"""Bookmarks: how far a reader of a whole topic has come, in every partition at once. They travel as event ids.

A bookmark names the log it was made in: the topic, and the timeline of the database it lived on. In another one its
offsets mean nothing.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.domain.message import MAX_BIGINT
from app.domain.partition import MAX_PARTITIONS

# Header fields are limited, and every event carries one.
MAX_LENGTH = 16 * 1024
_FORM = 1
_TEXT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Bookmark:
    """``offsets``: by partition number, the next one to read. A partition it does not name is read from its start."""

    topic_id: int
    timeline: int
    offsets: tuple[int, ...]

    def __str__(self) -> str:
        return written(self.topic_id, self.timeline, self.offsets)


def written(topic_id: int, timeline: int, offsets: Sequence[int]) -> str:
    """Opaque text of letters, digits, ``-`` and ``_``. Partitions filled evenly differ little, so that is stored."""
    least = min(offsets, default=0)
    numbers = [_FORM, topic_id, timeline, len(offsets), least, *[offset - least for offset in offsets]]
    return urlsafe_b64encode(_packed(numbers)).rstrip(b"=").decode()


def parse_bookmark(text: str) -> Bookmark | None:
    """None if this was never one of ours."""
    if len(text) > MAX_LENGTH or not _TEXT.fullmatch(text):
        return None
    try:
        numbers = _unpacked(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        form, topic_id, timeline, count, least = (next(numbers) for _ in range(5))
        if form != _FORM or count > MAX_PARTITIONS:
            return None
        offsets = tuple(least + next(numbers) for _ in range(count))
    except (ValueError, StopIteration, RuntimeError):
        return None
    if next(numbers, None) is not None or max((topic_id, *offsets)) > MAX_BIGINT:
        return None
    return Bookmark(topic_id, timeline, offsets)


def _packed(numbers: Sequence[int]) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow (LEB128)."""
    packed = bytearray()
    for number in numbers:
        rest = number
        while rest > 0x7F:
            packed.append(rest & 0x7F | 0x80)
            rest >>= 7
        packed.append(rest)
    return bytes(packed)


def _unpacked(packed: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in packed:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
        elif shift > 70:
            raise ValueError("too large a number")
    if shift:
        raise ValueError("cut off")
