"""The frames of server-sent events: fields a line each, and an empty line.

Ids are letters, digits, ``-`` and ``_``, and data is JSON on one line: nothing of a publisher can begin a field.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from app.api.form import browsed, delivered
from app.broker.demand import Pulled
from app.broker.round import Encoder, Gap
from app.domain.message import Message


def message_frame(topic: str, message: Message, bookmark: str) -> bytes:
    return b"id: %b\nevent: message\ndata: %b\n\n" % (bookmark.encode(), on_one_line(browsed(topic, message)))


def gap_frame(gaps: Sequence[Gap], bookmark: str) -> bytes:
    document = {"partitions": [{"partition": gap.partition, "from": gap.first, "to": gap.last} for gap in gaps]}
    return b"id: %b\nevent: gap\ndata: %b\n\n" % (bookmark.encode(), orjson.dumps(document))


def position_frame(bookmark: str) -> bytes:
    """Browsers dispatch no event without data, but keep its id."""
    return b"id: %b\nevent: position\n\n" % bookmark.encode()


ENCODER = Encoder(message_frame, gap_frame, position_frame)


def delivered_frames(pulled: Pulled) -> bytes:
    """What a pull took, an event each; their ids are the messages', for the log of whoever reads them."""
    frames = []
    for body in delivered(pulled):
        message_id = body[7 : body.index(b'"', 7)]  # {"id":"…"
        frames.append(b"id: %b\nevent: message\ndata: %b\n\n" % (message_id, on_one_line(body)))
    return b"".join(frames)


def on_one_line(json: bytes) -> bytes:
    """Line ends in JSON are white space between its tokens; in an event they would end the field."""
    if b"\n" in json or b"\r" in json:
        return json.replace(b"\r", b" ").replace(b"\n", b" ")
    return json
