"""``logpost groups``: declare, look at, pause, move and delete the consumer groups of a topic."""

from __future__ import annotations

from typing import Any

import click

from app.cli.client import Client, path
from app.cli.lag import lag
from app.cli.options import confirm, connected, document_option, placed
from app.cli.output import Output

COLUMNS = (
    ("name", "name"),
    ("mode", "delivery.mode"),
    ("url", "delivery.url"),
    ("ordering", "ordering"),
    ("filter", "filter"),
    ("paused", "paused"),
    ("created", "createdAt"),
)
# Option of ``declare`` → where its value goes in the configuration.
PLACES = {
    "start_from": "startFrom",
    "ordering": "ordering",
    "filter_": "filter",
    "ack_timeout_ms": "ackTimeoutMs",
    "batch_size": "batchSize",
    "max_in_flight": "maxInFlight",
    "concurrency": "concurrency",
    "retries_max": "retries.max",
    "push_url": "delivery.url",
    "mode": "delivery.mode",
}


class Position(click.ParamType[str | int]):
    """A named position or an ISO 8601 time as text, an offset as a number."""

    name = "position"

    def convert(self, value: Any, _parameter: click.Parameter | None, _context: click.Context | None) -> str | int:
        return int(value) if isinstance(value, str) and value.isdecimal() else value


@click.group()
def groups() -> None:
    """Declare, look at, pause, move and delete the consumer groups of a topic."""


groups.add_command(lag)


@groups.command("list")
@click.argument("topic")
@click.option("--limit", type=click.IntRange(1), help="At most this many; all unless given.")
@connected
def list_groups(client: Client, output: Output, topic: str, limit: int | None) -> None:
    """The groups of TOPIC, by name."""
    output.rows(client.pages(path("topics", topic, "groups"), limit=limit), COLUMNS)


@groups.command()
@click.argument("topic")
@click.argument("group")
@click.option("--start-from", type=Position(), help="latest, earliest, an ISO time or an offset; for a new group only.")
@click.option("--ordering", type=click.Choice(["partition", "key", "none"]), help="What is delivered in order.")
@click.option("--filter", "filter_", metavar="CEL", help="Deliver only the messages for which this is true.")
@click.option("--ack-timeout-ms", type=int, help="How long a consumer has to settle a message.")
@click.option("--batch-size", type=int, help="Most messages of one pull that does not say.")
@click.option("--max-in-flight", type=int, help="Most unsettled messages over all consumers.")
@click.option("--concurrency", type=int, help="Parallel deliveries of a push group.")
@click.option("--retries-max", type=int, help="Redeliveries after the first attempt.")
@click.option("--push-url", help="Deliver by POST to this URL instead of on demand.")
@click.option("--pull", is_flag=True, help="Deliver on demand (a group that was pushed keeps its place).")
@document_option
@connected
def declare(
    client: Client, output: Output, *, topic: str, group: str, pull: bool, document: dict[str, Any], **given: Any
) -> None:
    """Create GROUP of TOPIC, or change it, keeping its place: what is not given gets its default."""
    if pull and given["push_url"]:
        raise click.UsageError("--pull and --push-url exclude each other")
    given["mode"] = "push" if given["push_url"] else "pull" if pull else None
    output.document(client.call("PUT", path("topics", topic, "groups", group), placed(document, given, PLACES)))


@groups.command()
@click.argument("topic")
@click.argument("group")
@connected
def show(client: Client, output: Output, topic: str, group: str) -> None:
    """The configuration of GROUP."""
    output.document(client.call("GET", path("topics", topic, "groups", group)))


@groups.command()
@click.argument("topic")
@click.argument("group")
@connected
def stats(client: Client, output: Output, topic: str, group: str) -> None:
    """Where the messages of GROUP are, and what became of those that were delivered."""
    output.document(client.call("GET", path("topics", topic, "groups", group, "stats")))


@groups.command()
@click.argument("topic")
@click.argument("group")
@click.option("--reason", help="Kept with the pause and shown to others.")
@connected
def pause(client: Client, output: Output, topic: str, group: str, reason: str | None) -> None:
    """Stop delivery to GROUP; what is in flight may still be settled."""
    answer = client.call("POST", path("topics", topic, "groups", group, "pause"), {"reason": reason} if reason else {})
    output.done(f"Paused group {group} of {topic}.", answer)


@groups.command()
@click.argument("topic")
@click.argument("group")
@connected
def resume(client: Client, output: Output, topic: str, group: str) -> None:
    """End a pause of GROUP."""
    answer = client.call("POST", path("topics", topic, "groups", group, "resume"), {})
    output.done(f"Resumed group {group} of {topic}.", answer)


@groups.command()
@click.argument("topic")
@click.argument("group")
@click.argument("position", required=False, type=click.Choice(["earliest", "latest"]))
@click.option("--offset", type=int, help="To this offset in every partition.")
@click.option("--timestamp", help="To the first message at or after this ISO 8601 time.")
@click.option("--message-id", help="To this message, in its partition only.")
@connected
def seek(
    client: Client,
    output: Output,
    *,
    topic: str,
    group: str,
    position: str | None,
    offset: int | None,
    timestamp: str | None,
    message_id: str | None,
) -> None:
    """Move GROUP to POSITION (earliest or latest), or to what one of the options says."""
    choices = {"position": position, "offset": offset, "timestamp": timestamp, "messageId": message_id}
    target = {name: value for name, value in choices.items() if value is not None}
    if len(target) != 1:
        raise click.UsageError("give one of earliest, latest, --offset, --timestamp and --message-id")
    answer = client.call("POST", path("topics", topic, "groups", group, "seek"), target)
    output.done(f"Moved group {group} of {topic} to {next(iter(target.values()))}.", answer)


@groups.command()
@click.argument("topic")
@click.argument("group")
@click.option("--from", "start", type=Position(), required=True, help="An ISO 8601 time or an offset.")
@connected
def replay(client: Client, output: Output, topic: str, group: str, start: str | int) -> None:
    """Deliver to GROUP once more everything from a time or an offset on."""
    answer = client.call("POST", path("topics", topic, "groups", group, "replay"), {"from": start})
    output.done(f"Group {group} of {topic} gets everything from {start} on once more.", answer)


@groups.command()
@click.argument("topic")
@click.argument("group")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def delete(client: Client, output: Output, topic: str, group: str, yes: bool) -> None:
    """Delete GROUP with its place in the topic and its dead letters."""
    confirm(f"Delete group {group} of {topic}?", yes=yes)
    output.done(f"Deleted group {group} of {topic}.", client.call("DELETE", path("topics", topic, "groups", group)))
