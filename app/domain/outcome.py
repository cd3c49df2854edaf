"""What came of one webhook request, and what it means for the delivery: Answer → Outcome. DESIGN §3, Push.

The reply's ``Logpost-Action`` header decides if there is one, else the status; the body never does.

=============================== ==============================================================
2xx                             Ack; in manual mode Taken: the receiver settles by its ackId
410                             Pause of the group; nothing is lost
429, 503 with ``Retry-After``   Throttle of the group; uses no attempt
anything else, or no answer     Nack, after the endpoint's ``Retry-After`` or the group's backoff
=============================== ==============================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, cast

import msgspec

Action = Literal["ack", "nack", "discard", "pause"]
ErrorClass = Literal[
    "dns",  # the name does not resolve
    "blocked_address",  # it resolves to, or is, an address webhooks may not be at
    "connect",  # nobody takes the connection
    "tls",  # no handshake, or a certificate that is not trusted for this name
    "timeout",  # no status within the deadline
    "disconnected",  # the connection ended before a status came
    "protocol",  # what came is not HTTP
    "too_large",  # the head of the answer is over its limits
    "unsendable",  # the request cannot be put on the wire
    "status",  # a status that is not 2xx
]

MAX_RETRY_AFTER_MS = 24 * 60 * 60 * 1000
# A 429 that does not say for how long, and the least a throttle lasts, so that "0" does not become a hot loop.
DEFAULT_THROTTLE_MS = 1000
MIN_THROTTLE_MS = 100
MAX_EXCERPT_BYTES = 4096

_ACTIONS = frozenset(("ack", "nack", "discard", "pause"))
_SECONDS = re.compile(r"[0-9]+")
# What drives a terminal, ends a line or has no place in a text column. Line feeds and tabs stay readable.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a request came to. ``status`` is None when no status came; then ``error_class`` says why.

    ``error``: a sentence for people, None after a 2xx. ``excerpt``: the beginning of the body, escaped, at most
    MAX_EXCERPT_BYTES as UTF-8. ``retry_after_ms``: 0 to MAX_RETRY_AFTER_MS.
    """

    status: int | None = None
    error_class: ErrorClass | None = None
    error: str | None = None
    latency_ms: int = 0
    excerpt: str | None = None
    retry_after_ms: int | None = None
    action: Action | None = None

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status <= 299

    @property
    def healthy(self) -> bool | None:
        """For the breaker: True shows an endpoint that works, False one that fails, None says nothing about it."""
        if self.accepted or self.action is not None:
            return True
        if self.status in (410, 429) or (self.status == 503 and self.retry_after_ms is not None):
            return None
        return False


@dataclass(frozen=True, slots=True)
class Ack:
    pass


@dataclass(frozen=True, slots=True)
class Taken:
    """Manual mode: the receiver has the message and settles it by its ackId within ackTimeoutMs."""


@dataclass(frozen=True, slots=True)
class Nack:
    """One attempt used. ``delay_ms`` None: the group's backoff."""

    reason: str
    delay_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Discard:
    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """The group stops; the message stays unsettled and no attempt is used."""

    reason: str


@dataclass(frozen=True, slots=True)
class Throttle:
    """The whole group waits ``delay_ms``; no attempt is used."""

    delay_ms: int


Outcome = Ack | Taken | Nack | Discard | Pause | Throttle


def judge(answer: Answer, *, manual: bool = False) -> Outcome:
    """What an answer means for the delivery. ``manual``: the group's ackMode is manual."""
    if answer.action is not None:
        return _asked_for(answer, answer.action)
    if answer.accepted:
        return Taken() if manual else Ack()
    reason = answer.error or _status_sentence(answer.status)
    if answer.status == 410:
        return Pause("the endpoint answered 410 Gone")
    if answer.status == 429 or (answer.status == 503 and answer.retry_after_ms is not None):
        delay = DEFAULT_THROTTLE_MS if answer.retry_after_ms is None else answer.retry_after_ms
        return Throttle(max(MIN_THROTTLE_MS, min(delay, MAX_RETRY_AFTER_MS)))
    return Nack(reason, _clamped(answer.retry_after_ms))


def action_of(value: str | None) -> Action | None:
    """The action a ``Logpost-Action`` header asks for; None, so that the status decides, for any other word."""
    word = (value or "").strip().lower()
    return cast("Action", word) if word in _ACTIONS else None


def retry_after_ms(headers: Mapping[str, str], now: datetime) -> int | None:
    """``Retry-After`` in milliseconds, clamped to 24 hours; None if there is none or it is neither of the two forms.

    RFC 9110 §10.2.3: seconds, or a date. A date counts from the answer's own ``Date``, so that neither clock has to be
    right; from ``now`` where there is none. ``headers`` ignores case.
    """
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if _SECONDS.fullmatch(value):
        # Compared as text first: a number of a million digits is not worth reading.
        return MAX_RETRY_AFTER_MS if len(value.lstrip("0")) > 9 else _clamped(int(value) * 1000)
    until = _date(value)
    if until is None:
        return None
    since = _date(headers.get("Date", "").strip()) or now
    return _clamped(int((until - since).total_seconds() * 1000))


def excerpt_of(body: bytes) -> str | None:
    """The beginning of a body as text that is safe to store, show and log; None if there is no body.

    Bytes that are not UTF-8 and control characters are written as ``\\xNN``; whatever the body claims to be is ignored.
    """
    # A few bytes more than are kept: what they cut a character into is then past the end.
    text = body[: MAX_EXCERPT_BYTES + 4].decode("utf-8", "backslashreplace")
    escaped = _CONTROLS.sub(_escaped, text)
    # Escaping can quadruple the size; cutting bytes can end within a character, which is dropped.
    return escaped.encode()[:MAX_EXCERPT_BYTES].decode("utf-8", "ignore") or None


def _asked_for(answer: Answer, action: Action) -> Outcome:
    if action == "ack":
        return Ack()
    if action == "nack":
        return Nack(answer.error or "the endpoint asked for a nack", _clamped(answer.retry_after_ms))
    if action == "discard":
        return Discard(answer.excerpt or "the endpoint asked for a discard")
    return Pause("the endpoint asked for a pause")


def _status_sentence(status: int | None) -> str:
    return "the endpoint did not answer" if status is None else f"the endpoint answered {status}"


def _clamped(delay_ms: int | None) -> int | None:
    return None if delay_ms is None else max(0, min(delay_ms, MAX_RETRY_AFTER_MS))


def _date(text: str) -> datetime | None:
    # No HTTP date is longer than its RFC 850 form.
    if not text or len(text) > 40:
        return None
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # RFC 5322 "-0000" parses without a zone; it means UTC.
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
