"""``logpost topics``: declare, look at, pause, empty and delete topics."""

from __future__ import annotations

from typing import Any

import click

from app.cli.client import Client, path
from app.cli.options import confirm, connected, document_option, placed
from app.cli.output import Output

COLUMNS = (
    ("name", "name"),
    ("partitions", "distribution.partitions"),
    ("tags", "tags"),
    ("paused", "paused"),
    ("created", "createdAt"),
)
# Option of ``declare`` → where its value goes in the configuration.
PLACES = {
    "partitions": "distribution.partitions",
    "partition_key": "distribution.partitionKey",
    "max_age_ms": "retention.maxAgeMs",
    "max_count": "retention.maxCount",
    "idempotency_window_ms": "idempotency.windowMs",
    "tags": "tags",
}


@click.group()
def topics() -> None:
    """Declare, look at, pause, empty and delete topics."""


@topics.command("list")
@click.option("--tag", help="Only topics with this tag.")
@click.option("--limit", type=click.IntRange(1), help="At most this many; all unless given.")
@connected
def list_topics(client: Client, output: Output, tag: str | None, limit: int | None) -> None:
    """The topics there are, by name."""
    output.rows(client.pages(path("topics"), {"tag": tag} if tag else None, limit=limit), COLUMNS)


@topics.command()
@click.argument("topic")
@click.option("--partitions", type=int, help="Number of partitions; can be raised later, never lowered.")
@click.option("--partition-key", metavar="CEL", help="Expression for the key of a message published without one.")
@click.option("--max-age-ms", type=int, help="Remove messages older than this.")
@click.option("--max-count", type=int, help="Keep this many of the newest messages.")
@click.option("--idempotency-window-ms", type=int, help="How long an idempotency key is remembered.")
@click.option("--tag", "tags", multiple=True, help="A tag; may be given several times.")
@document_option
@connected
def declare(client: Client, output: Output, *, topic: str, document: dict[str, Any], **given: Any) -> None:
    """Create TOPIC, or change it: what is not given gets its default (partitions stay as they are)."""
    given["tags"] = list(given["tags"]) or None
    output.document(client.call("PUT", path("topics", topic), placed(document, given, PLACES)))


@topics.command()
@click.argument("topic")
@connected
def show(client: Client, output: Output, topic: str) -> None:
    """The configuration of TOPIC."""
    output.document(client.call("GET", path("topics", topic)))


@topics.command()
@click.argument("topic")
@connected
def stats(client: Client, output: Output, topic: str) -> None:
    """How much TOPIC holds, and how far its groups are."""
    output.document(client.call("GET", path("topics", topic, "stats")))


@topics.command()
@click.argument("topic")
@click.option("--reason", help="Kept with the pause and shown to others.")
@connected
def pause(client: Client, output: Output, topic: str, reason: str | None) -> None:
    """Stop delivery to every group of TOPIC, present and later; publishing goes on."""
    answer = client.call("POST", path("topics", topic, "pause"), {"reason": reason} if reason else {})
    output.done(f"Paused topic {topic}.", answer)


@topics.command()
@click.argument("topic")
@connected
def resume(client: Client, output: Output, topic: str) -> None:
    """End a pause of TOPIC."""
    output.done(f"Resumed topic {topic}.", client.call("POST", path("topics", topic, "resume"), {}))


@topics.command()
@click.argument("topic")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def purge(client: Client, output: Output, topic: str, yes: bool) -> None:
    """Remove every message, dead letter and idempotency key of TOPIC; offsets go on where they were."""
    confirm(f"Remove everything that was published to {topic}?", yes=yes)
    output.document(client.call("POST", path("topics", topic, "purge"), {}))


@topics.command()
@click.argument("topic")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def delete(client: Client, output: Output, topic: str, yes: bool) -> None:
    """Delete TOPIC with its messages and groups."""
    confirm(f"Delete {topic} with its messages and groups?", yes=yes)
    output.done(f"Deleted topic {topic}.", client.call("DELETE", path("topics", topic)))
