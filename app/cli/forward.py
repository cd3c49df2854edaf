"""``logpost forward``: forward messages to a URL on this machine, as a push would, while a receiver is being written.

The server needs no way to this machine: the messages come as a stream, and what is sent from here is built by the same
code as a push.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from app.cli.client import CallError, Client, NotSendable, Problem, Unreachable, decode, path
from app.cli.events import followed
from app.cli.options import connected
from app.cli.output import Output, note
from app.domain.errors import InvalidField
from app.domain.group import Delivery, Group, GroupConfig, Retries
from app.domain.message import Message, NewMessage, meta_of, parse_message_id
from app.domain.outcome import Ack, Answer, Discard, Nack, Taken, action_of, excerpt_of, judge, retry_after_ms
from app.domain.partition import topic_of
from app.domain.signature import parse_secret
from app.webhook.request import Letterhead, Request, delivery_request

if TYPE_CHECKING:
    import httpx

EXCERPT = 200


class _Came(msgspec.Struct, rename="camel"):
    """A message of a topic's stream, or of a group's, which has an ackId and attempts."""

    id: str
    topic: str
    offset: int
    published_at: datetime
    key: str | None = None
    headers: dict[str, str] = {}
    correlation_id: str | None = None
    message: msgspec.Raw = msgspec.Raw(b"")
    content_type: str | None = None
    data_base64: bytes | None = None
    attempt: int = 1
    max_attempts: int = 1
    ack_id: str | None = None


@click.command()
@click.argument("topic")
@click.argument("group", required=False)
@click.option("--to", "to", metavar="URL", required=True, help="Where the messages go, e.g. http://127.0.0.1:3000/in.")
@click.option("--secret", envvar="LOGPOST_FORWARD_SECRET", show_envvar=True, help="Signs them: whsec_ and base64.")
@click.option("--timeout-ms", type=click.IntRange(min=1), default=30_000, show_default=True, help="For one answer.")
@click.option("--limit", type=click.IntRange(min=1), help="End after this many.")
@connected
def forward(
    client: Client, output: Output, *, topic: str, group: str | None, to: str, secret: str | None, timeout_ms: int,
    limit: int | None,
) -> None:  # fmt: skip
    """Forward the messages of TOPIC to a URL, as pushes, and print what came of each.

    With GROUP they are the group's: a 2xx acks, anything else nacks, one message at a time. Without it they are what is
    published from now on, and nothing is settled.
    """
    import httpx  # noqa: PLC0415 - as in client.py

    if secret is not None:
        try:
            parse_secret(secret, "--secret")
        except InvalidField as error:
            raise click.UsageError(str(error)) from error
    target = path("topics", topic) if group is None else path("topics", topic, "groups", group)
    params: dict[str, str | int] = {"from": "latest"} if group is None else {"max": 1}
    done = 0
    with httpx.Client(trust_env=False, timeout=timeout_ms / 1000) as receiver:
        for event in followed(client, f"{target}/stream", params, note=note):
            if event.kind != "message":
                continue
            came = decode(event.data.encode(), _Came)
            answer = _send(receiver, _request(came, group, to, secret, timeout_ms))
            output.line(_told(came, answer))
            output.stream.flush()
            if came.ack_id is not None:
                _settle(client, target, came.ack_id, answer)
            done += 1
            if done == limit:
                return


def _request(came: _Came, group: str | None, to: str, secret: str | None, timeout_ms: int) -> Request:
    place = parse_message_id(came.id)
    if place is None:
        raise CallError(f"{came.id!r} is not the id of a message")
    payload = bytes(came.message) if came.data_base64 is None else came.data_base64
    meta = meta_of(
        NewMessage(
            payload, headers=came.headers, correlation_id=came.correlation_id, content_type=came.content_type
        )
    )  # fmt: skip
    config = GroupConfig(
        delivery=Delivery(mode="push", url=to, secret=secret),
        retries=Retries(max=came.max_attempts - 1),
        ack_timeout_ms=timeout_ms,
    )
    now, topic_id = datetime.now(UTC), topic_of(place.partition_id)
    as_pushed = Group(
        id=0, topic_id=topic_id, topic=came.topic, name=group or "", config=config, partitions=1, version=1,
        paused_since=None, pause_reason=None, topic_paused_since=None, topic_pause_reason=None, created_at=now,
        updated_at=now,
    )  # fmt: skip
    message = Message(place.partition_id, came.offset, came.published_at, came.key, meta, payload)
    return delivery_request(
        Letterhead(as_pushed), message, message_id=came.id, attempt=came.attempt, ack_id=came.ack_id or "", now=now
    )


def _send(receiver: httpx.Client, request: Request) -> Answer:
    import httpx  # noqa: PLC0415

    headers = [(name.encode(), value.encode()) for name, value in request.headers if value]
    started = time.monotonic()
    try:
        response = receiver.post(request.url, content=request.body, headers=headers)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise NotSendable(f"nothing can be sent to {request.url}: {error}") from error
    except httpx.TimeoutException:
        return Answer(error_class="timeout", error="no answer in time", latency_ms=_since(started))
    except httpx.TransportError as error:
        return Answer(error_class="connect", error=str(error) or "no answer", latency_ms=_since(started))
    return Answer(
        status=response.status_code,
        error_class=None if response.is_success else "status",
        error=None if response.is_success else f"the endpoint answered {response.status_code}",
        latency_ms=_since(started),
        excerpt=excerpt_of(response.content),
        retry_after_ms=retry_after_ms(response.headers, datetime.now(UTC)),
        action=action_of(response.headers.get("Logpost-Action")),
    )


def _settle(client: Client, target: str, ack_id: str, answer: Answer) -> None:
    verb, more = _verdict(answer)
    try:
        client.call("POST", f"{target}/{verb}", {"ackIds": [ack_id], **more})
    except (Problem, Unreachable) as error:  # it comes back, and is sent again
        note(str(error))


def _verdict(answer: Answer) -> tuple[str, Mapping[str, str | int]]:
    """A pause or a throttle of a push is a nack here: there is nothing to pause but the one who forwards."""
    match judge(answer):
        case Ack() | Taken():
            return "ack", {}
        case Discard(reason):
            return "discard", {"reason": reason[:EXCERPT]}
        case Nack(reason, delay_ms):
            return "nack", {"reason": reason} | ({} if delay_ms is None else {"delayMs": delay_ms})
        case _:
            return "nack", {"reason": answer.error or "the endpoint asked for time"}


def _told(came: _Came, answer: Answer) -> bytes:
    return json.dumps(
        {
            "id": came.id, "attempt": came.attempt, "outcome": _verdict(answer)[0], "status": answer.status,
            "latencyMs": answer.latency_ms, "error": answer.error, "excerpt": (answer.excerpt or "")[:EXCERPT] or None,
        }
    ).encode()  # fmt: skip


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
