"""The history of a run: what every client asked for and what it was told, one JSON object a line.

Each process writes a file of its own. Times are CLOCK_MONOTONIC in nanoseconds, which is one clock for the whole
machine. An operation that can change something writes its *invoke* before it is sent, flushed, so that a process
which dies leaves an open operation: its outcome is then unknown (``info``). A completion repeats everything the
invoke said, so a reader needs only the last line of an operation.

=========  ===============================================================================================
``f``      what happened
=========  ===============================================================================================
topic      declared: data {partitions, maxAgeMs, maxCount}
group      declared: data {ordering, maxAttempts, ackTimeoutMs, strategy, baseDelay, maxDelay, deadLetter}; of a push
           group maxInFlight too, of one with a filter the keys it wants
publish    val, key, idem, sha; ok: part, off, dup. data {delayMs, ttlMs} where asked for
pull       one call; ``info`` when its answer was lost, and with it perhaps a claim
deliver    one message of a pull, received at t1: part, off, key, val, tok (ackId), exp, att, epoch, cons, sha.
           Of a stream: ms is how long its server leased it at a time, for it renews. Of a push: t1 is when the
           request was whole, exp is unknown, cons the lease
stream     of a group, by cons, when it has ended: from t0 to t1 what it had is handed back, or runs out unseen.
           data {read}: since when nothing was read of it any more
ack, nack, discard, extend   by tok; ``fail`` is a proof that nothing changed (stale); ms is the delay or timeout.
           Of a push: what its receiver answered, ``ok`` if it wrote all of the answer
seek       off (the first offset to be delivered), or data {position: latest}; part None means every partition
redrive    of a dead letter: group, part, off
snapshot   of a cursor: off = committedOffset, data {lag, inFlight, ...}; cons "final" for the last one
read       one message of the log as a reader saw it: cons names the session ("audit:2", "tail:1")
audit      a whole partition was read from start to end: cons, off = its last offset, data {final: true}
dlq        one dead letter in a listing: group, part, off, val, att; exp = when it died
fault      val = its name, from t0 to t1; data {kill: true} when processes died at t0, {hung: group} for a hang
window     of the nemesis, from t0 to t1: faults that began in it belong to it; what lasts goes on beside the next one
recovery   val = the fault, t0 = when it was over, t1 = the first success after it
quiesce    the drain, ``ok`` when every lag came to 0
torn       val says what a purge, or retention, of the topic beside the tested one did by halves
sample     data {process: {rss, fds, connections, ...}}
=========  ===============================================================================================

``fail`` is for answers that prove nothing happened (400, 401, 403, 404, 409, 413, 415, 422, 429). Every other end of
an operation that is not ``ok`` is ``info``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

MS = 1_000_000
SECOND = 1_000_000_000
NEVER = 2**63 - 1

# How far the database's clock, as it reaches us through timestamps with a millisecond's digits and the conversion to
# our monotonic clock, may be off on one machine.
SLACK = 25 * MS

NO_EFFECT = frozenset({400, 401, 403, 404, 409, 413, 415, 422, 429})


class Head(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """What of a line says where it belongs."""

    f: str
    type: str = "ok"
    t0: int = 0
    t1: int = 0
    proc: str = ""
    op: int = 0
    topic: str = ""
    part: int | None = None


class Event(Head, omit_defaults=True, kw_only=True, gc=False):
    """One line. Times in nanoseconds; ``exp`` too; ``ms`` in milliseconds; ``op`` counts per process."""

    key: str | None = None
    val: str | None = None
    off: int | None = None
    epoch: int = 0
    idem: str | None = None
    group: str = ""
    cons: str = ""
    tok: str | None = None
    exp: int = 0
    att: int = 0
    ms: int | None = None
    status: int = 0
    sha: str | None = None
    dup: bool = False
    data: dict[str, Any] | None = None


def option(event: Event, name: str) -> Any:
    """An entry of ``data``, or None."""
    return event.data.get(name) if event.data else None


def now() -> int:
    return time.monotonic_ns()


class Recorder:
    """Writes one process's file."""

    def __init__(self, directory: Path, proc: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.proc = proc
        self.path = directory / f"{proc}.jsonl"
        self._file: BinaryIO = self.path.open("ab", buffering=1 << 20)
        self._encoder = msgspec.json.Encoder()
        self._ops = 0

    def invoke(self, events: Iterable[Event]) -> None:
        """Says that these are about to be sent; on disk (as far as a killed process is concerned) when it returns."""
        for event in events:
            self._ops += 1
            event.op = self._ops
            event.proc = self.proc
            event.type = "invoke"
            event.t0 = event.t0 or now()
            self._write(event)
        self._file.flush()

    def complete(self, events: Iterable[Event], type_: str, *, status: int = 0) -> None:
        """Ends invoked operations, or records what needs no invoke. ``t1`` is now unless it is set."""
        for event in events:
            event.type = type_
            event.proc = self.proc
            event.t1 = event.t1 or now()
            event.status = status or event.status
            self._write(event)

    def note(self, event: Event) -> None:
        """Records something complete in itself."""
        self.complete([event], event.type)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _write(self, event: Event) -> None:
        self._file.write(self._encoder.encode(event) + b"\n")


def read_lines(path: Path) -> Iterator[Event]:
    """The events of one file as written. A last line that a kill cut short is left out."""
    decoder = msgspec.json.Decoder(Event)
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)


def completed(events: Iterable[Event]) -> Iterator[Event]:
    """Operations instead of lines: an invoke whose completion is missing comes last, as ``info`` without an end."""
    waiting: dict[tuple[str, int], Event] = {}
    for event in events:
        if event.type == "invoke":
            waiting[event.proc, event.op] = event
            continue
        if event.op:
            waiting.pop((event.proc, event.op), None)
        yield event
    for event in waiting.values():
        event.type = "info"
        event.t1 = NEVER
        yield event


def operations(path: Path) -> Iterator[tuple[Head, bytes]]:
    """The same of a file, as lines: of most, nobody needs to know more yet than where they belong."""
    heads = msgspec.json.Decoder(Head)
    waiting: dict[int, bytes] = {}
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                continue
            head = heads.decode(line)
            if head.type == "invoke":
                waiting[head.op] = line
                continue
            waiting.pop(head.op, None)
            yield head, line
    encoder = msgspec.json.Encoder()
    for line in waiting.values():
        event = msgspec.json.decode(line, type=Event)
        event.type, event.t1 = "info", NEVER
        yield event, encoder.encode(event) + b"\n"
