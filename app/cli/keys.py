"""``logpost keys``: make, look at and revoke API keys. With the root key."""

from __future__ import annotations

from typing import Any

import click

from app.cli.client import Client, path
from app.cli.options import confirm, connected
from app.cli.output import Output

COLUMNS = (
    ("id", "id"),
    ("name", "name"),
    ("project", "project"),
    ("environment", "environment"),
    ("scopes", "scopes"),
    ("topics", "topics"),
    ("requests/s", "requestsPerSecond"),
    ("bytes/s", "bytesPerSecond"),
    ("expires", "expiresAt"),
    ("used", "lastUsedAt"),
)
# What options are called in the body.
CAMEL = {
    "expires_at": "expiresAt",
    "requests_per_second": "requestsPerSecond",
    "bytes_per_second": "bytesPerSecond",
}


@click.group()
def keys() -> None:
    """Make, look at and revoke API keys; with the root key."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(["publish", "consume", "manage"]),
    help="What it may do; may be given several times.",
)  # fmt: skip
@click.option("--topic", "topics", multiple=True, metavar="PATTERN", help="Topics it is for, like 'orders-*'.")
@click.option("--project", help="The project it is for.")
@click.option("--environment", help="The environment it is for.")
@click.option("--expires-at", metavar="TIME", help="When it ends, as an ISO 8601 time with a zone.")
@click.option(
    "--requests-per-second", metavar="N", type=click.IntRange(0), help="A rate of its own; 0: as many as it likes."
)
@click.option(
    "--bytes-per-second", metavar="N", type=click.IntRange(0), help="The same for the bodies of its requests."
)
@connected
def create(client: Client, output: Output, *, scopes: tuple[str, ...], topics: tuple[str, ...], **given: Any) -> None:
    """Make a key for NAME. It is shown this once."""
    given = {CAMEL.get(name, name): value for name, value in given.items()} | {"topics": list(topics) or None}
    body = {name: value for name, value in given.items() if value is not None}
    output.document(client.call("POST", path("keys"), body | {"scopes": list(scopes)}))


@keys.command("list")
@click.option("--project", help="Only keys of this project.")
@click.option("--environment", help="Only keys of this environment.")
@click.option("--limit", type=click.IntRange(1), help="At most this many; all unless given.")
@connected
def list_keys(client: Client, output: Output, *, limit: int | None, **given: str | None) -> None:
    """The keys there are, without what makes them keys."""
    asked = {name: value for name, value in given.items() if value is not None}
    output.rows(client.pages(path("keys"), asked, limit=limit), COLUMNS)


@keys.command()
@click.argument("key_id", metavar="ID")
@connected
def show(client: Client, output: Output, key_id: str) -> None:
    """What the key with this ID may do."""
    output.document(client.call("GET", path("keys", key_id)))


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def revoke(client: Client, output: Output, key_id: str, yes: bool) -> None:
    """End the key with this ID, for good and everywhere."""
    confirm(f"Revoke {key_id}?", yes=yes)
    output.done(f"Revoked {key_id}.", client.call("DELETE", path("keys", key_id)))
