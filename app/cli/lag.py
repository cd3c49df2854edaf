"""``logpost lag``: how much a group has still to settle."""

from __future__ import annotations

import click

from app.cli.client import Client, path
from app.cli.options import connected
from app.cli.output import Output


@click.command()
@click.argument("topic")
@click.argument("group")
@connected
def lag(client: Client, output: Output, topic: str, group: str) -> None:
    """How many messages GROUP has still to settle, in total and by partition."""
    output.document(client.call("GET", path("topics", topic, "groups", group, "lag")))
