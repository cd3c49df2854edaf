"""``logpost dead-letters``: look at the deliveries that used up their attempts, send them again, delete them."""

from __future__ import annotations

import click

from app.cli.client import Client, path
from app.cli.options import confirm, connected
from app.cli.output import Output

COLUMNS = (
    ("message id", "messageId"),
    ("partition", "partition"),
    ("offset", "offset"),
    ("key", "key"),
    ("attempts", "attempts"),
    ("dead since", "deadAt"),
    ("error", "error"),
)


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at deliveries that used up their attempts, send them again, delete them."""


@dead_letters.command("list")
@click.argument("topic")
@click.argument("group")
@click.option("--limit", type=click.IntRange(1), help="At most this many; all unless given.")
@connected
def list_dead_letters(client: Client, output: Output, topic: str, group: str, limit: int | None) -> None:
    """The dead letters of GROUP, newest first."""
    output.rows(client.pages(path("topics", topic, "groups", group, "dead-letters"), limit=limit), COLUMNS)


@dead_letters.command()
@click.argument("topic")
@click.argument("group")
@click.argument("message_id")
@connected
def show(client: Client, output: Output, topic: str, group: str, message_id: str) -> None:
    """One dead letter with its message and its last error."""
    output.document(client.call("GET", path("topics", topic, "groups", group, "dead-letters", message_id)))


@dead_letters.command()
@click.argument("topic")
@click.argument("group")
@click.argument("message_id")
@connected
def retry(client: Client, output: Output, topic: str, group: str, message_id: str) -> None:
    """Deliver one dead letter again, with a full budget of attempts."""
    target = path("topics", topic, "groups", group, "dead-letters", message_id, "retry")
    output.done(f"{message_id} will be delivered again.", client.call("POST", target, {}))


@dead_letters.command("retry-all")
@click.argument("topic")
@click.argument("group")
@connected
def retry_all(client: Client, output: Output, topic: str, group: str) -> None:
    """Deliver every dead letter of GROUP again; prints how many."""
    output.document(client.call("POST", path("topics", topic, "groups", group, "dead-letters", "retry"), {}))


@dead_letters.command()
@click.argument("topic")
@click.argument("group")
@click.argument("message_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def delete(client: Client, output: Output, *, topic: str, group: str, message_id: str, yes: bool) -> None:
    """Delete one dead letter for good."""
    confirm(f"Delete the dead letter {message_id} for good?", yes=yes)
    answer = client.call("DELETE", path("topics", topic, "groups", group, "dead-letters", message_id))
    output.done(f"Deleted the dead letter {message_id}.", answer)
