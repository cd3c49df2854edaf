"""Streams of server-sent events as the client reads them: again from where it was, whenever the connection ends."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from app.cli.client import CallError, Client, Problem, Unreachable, decode

# The server says something every 15 s.
SILENCE_S = 45.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    kind: str
    data: str
    last_id: str


def events(lines: Iterable[str], last_id: str = "") -> Iterator[Event]:
    """What is in the lines of a stream; an event that was cut off is none."""
    kind, data = "message", ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            yield Event(kind, data, last_id)
            kind, data = "message", ""
        elif name == "id":
            last_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            data = f"{data}\n{value}" if data else value


def followed(
    client: Client, target: str, params: Mapping[str, str | int], *, note: Callable[[str], None] = lambda _text: None
) -> Iterator[Event]:
    """Every event, over lost connections, restarts and problems that pass. ``note`` is told of these.

    Raises CallError for what will not pass, and where there was no server to begin with.
    """
    last_id, failures = "", 0
    while True:
        try:
            headers = [("accept", "text/event-stream"), *([("last-event-id", last_id)] if last_id else [])]
            with client.lines(target, params, headers, silence_s=SILENCE_S) as lines:
                for event in events(lines, last_id):
                    last_id = event.last_id
                    if event.kind == "problem":
                        _check(event, note)
                    else:
                        failures = 0
                        yield event
        except (Problem, Unreachable) as error:
            if isinstance(error, Problem) and error.status != 503:
                raise
            if not client.answered:
                raise
            note(str(error))
        failures += 1
        time.sleep(random.uniform(0.5, 1) * min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE_S))


def _check(event: Event, note: Callable[[str], None]) -> None:
    """Raises CallError for a problem that coming back will not cure. After the others there is an id to go on from."""
    document = decode(event.data.encode(), dict[str, object])
    code, detail = str(document.get("code")), str(document.get("detail"))
    if document.get("status") in (404, 403, 401):
        raise CallError(f"{code}: {detail}")
    note(f"{code}: {detail}")
