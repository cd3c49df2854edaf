"""Rounds: what one read of a topic brought, encoded once for everybody who watches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from app.broker.sift import context_of
from app.domain.expression import Expression, Verdict
from app.domain.message import Message
from app.domain.partition import number_of


class Gap(NamedTuple):
    """The first and the last offset of what a partition does not have any more."""

    partition: int
    first: int
    last: int


# (topic, message, bookmark) and (gaps, bookmark) → what a client is sent.
EncodeMessage = Callable[[str, Message, str], bytes]
EncodeGap = Callable[[Sequence[Gap], str], bytes]
EncodePosition = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Encoder:
    message: EncodeMessage
    gap: EncodeGap
    position: EncodePosition


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages of a topic somebody wants to see."""

    partition: int | None = None
    filter: Expression | None = None

    @property
    def key(self) -> tuple[int | None, str | None]:
        return self.partition, self.filter.text if self.filter else None

    def has(self, partition: int) -> bool:
        return self.partition is None or self.partition == partition

    def takes(self, topic: str, message: Message) -> bool:
        if not self.has(number_of(message.partition_id)):
            return False
        return self.filter is None or self.filter.judge(context_of(message, topic)) is Verdict.MATCH


class Frame(NamedTuple):
    """What clients are sent for a message; for a gap there is none."""

    partition: int
    message: Message | None
    content: bytes


@dataclass(eq=False, slots=True)
class Round:
    """What one read brought, and the bookmark's offsets after it."""

    frames: list[Frame]
    offsets: tuple[int, ...]
    chosen: dict[tuple[int | None, str | None], bytes] = field(default_factory=dict)

    def chunk(self, topic: str, selection: Selection) -> bytes:
        """The frames of a selection, joined once for all who made the same."""
        key = selection.key
        if key not in self.chosen:
            self.chosen[key] = b"".join(
                content
                for partition, message, content in self.frames
                if (selection.has(partition) if message is None else selection.takes(topic, message))
            )
        return self.chosen[key]

    @property
    def size(self) -> int:
        return sum(len(frame.content) for frame in self.frames)
