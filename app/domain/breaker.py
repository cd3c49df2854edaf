"""The circuit breaker of a push group: stops calling an endpoint that is down, without using up anybody's attempts.

::

    closed ──5 failures in a row, over 3 messages──> open ──its time is over──> half open ──one probe fails──> open
       ^                                                                            │        (twice as long)
       └────────────────────────────── any success ─────────────────────────────────┘

One poison message cannot open it: its failures are all of one message, and anybody else's success starts the count
again. The state is a small document (``encode``, ``decode``) in a row of the database which replicas share; every
function gives the state that is to be stored back, and times are the database's, in milliseconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FAILURES = 5
MESSAGES = 3
FIRST_OPEN_MS = 1000
MAX_OPEN_MS = 60_000

State = Literal["closed", "open", "half_open"]


class Breaker(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """``failures`` in a row while closed, and the ids of the first MESSAGES different ``messages`` among them.

    ``openings`` in a row without a success between them; ``open_until`` the end of the present one. ``probe``: the
    message that is trying the endpoint, until ``probe_until``, when its process must have died.
    """

    failures: int = 0
    messages: tuple[str, ...] = ()
    openings: int = 0
    open_until: int = 0
    probe: str | None = None
    probe_until: int = 0

    def state(self, now: int) -> State:
        if not self.openings:
            return "closed"
        return "open" if now < self.open_until else "half_open"

    def wait_ms(self, now: int) -> int:
        """How long nothing may be sent: 0 while closed, and when a probe is due."""
        if not self.openings:
            return 0
        until = self.open_until if self.probe is None else max(self.open_until, self.probe_until)
        return max(0, until - now)


# Where it starts, and after any success, be it the probe's or of a request sent before it opened.
CLOSED = Breaker()


def permit(breaker: Breaker, message: str, now: int, *, probe_ms: int) -> tuple[Breaker, bool]:
    """Whether ``message`` may be sent now. Half open, the first to ask becomes the probe for at most ``probe_ms``."""
    if breaker.wait_ms(now) > 0:
        return breaker, False
    if not breaker.openings:
        return breaker, True
    return msgspec.structs.replace(breaker, probe=message, probe_until=now + probe_ms), True


def failed(breaker: Breaker, message: str, now: int) -> Breaker:
    """After ``message`` failed. Stragglers sent before it opened neither prolong it nor count against the probe."""
    if breaker.openings:
        return _opened(breaker, now) if message == breaker.probe else breaker
    messages = breaker.messages
    if message not in messages and len(messages) < MESSAGES:
        messages = (*messages, message)
    breaker = Breaker(min(breaker.failures + 1, FAILURES), messages)
    if breaker.failures < FAILURES or len(messages) < MESSAGES:
        return breaker
    return _opened(breaker, now)


def abandoned(breaker: Breaker, message: str) -> Breaker:
    """After ``message`` ended without telling anything of the endpoint (throttled, handed back): another may probe."""
    if breaker.probe != message:
        return breaker
    return msgspec.structs.replace(breaker, probe=None, probe_until=0)


def encode(breaker: Breaker) -> str:
    """JSON for the database; ``{}`` is a closed one."""
    return msgspec.json.encode(breaker).decode()


def decode(text: str | bytes | None) -> Breaker:
    return CLOSED if text is None else msgspec.json.decode(text, type=Breaker)


def _opened(breaker: Breaker, now: int) -> Breaker:
    openings = breaker.openings + 1
    open_ms = min(MAX_OPEN_MS, FIRST_OPEN_MS << min(openings - 1, 16))
    return Breaker(openings=openings, open_until=now + open_ms)
