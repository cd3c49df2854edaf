"""``logpost tail``: watch a topic, without a group, as its messages come."""

from __future__ import annotations

import click

from app.cli.client import Client, path
from app.cli.events import followed
from app.cli.options import connected
from app.cli.output import Output, note


@click.command()
@click.argument("topic")
@click.option(
    "--from", "start", default="latest", show_default=True, help="earliest, latest, an offset, or an ISO 8601 time."
)
@click.option("--partition", type=int, help="Only this partition.")
@click.option("--filter", "expression", metavar="CEL", help="Only messages for which this is true.")
@click.option("--limit", type=click.IntRange(min=1), help="End after this many.")
@connected
def tail(
    client: Client,
    output: Output,
    *,
    topic: str,
    start: str,
    partition: int | None,
    expression: str | None,
    limit: int | None,
) -> None:
    """Print the messages of TOPIC as they come, one JSON line each. Goes on by itself after a lost connection."""
    asked = {"from": start, "partition": partition, "filter": expression}
    params = {name: value for name, value in asked.items() if value is not None}
    printed = 0
    for event in followed(client, path("topics", topic, "stream"), params, note=note):
        if event.kind == "gap":
            note(f"some messages are not retained any more: {event.data}")
        elif event.kind == "message":
            output.line(event.data.encode())
            output.stream.flush()
            printed += 1
            if printed == limit:
                return
