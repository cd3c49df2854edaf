"""``logpost pull``: take messages of a group and print them, a JSON line each."""

from __future__ import annotations

from collections.abc import Mapping

import click
import msgspec

from app.cli.client import Client, Problem, Unreachable, decode, path
from app.cli.events import followed
from app.cli.options import Failed, connected
from app.cli.output import Output, note


class _Pulled(msgspec.Struct):
    messages: list[msgspec.Raw]
    empty: str | None = None
    limit: str | None = None


class _Delivered(msgspec.Struct, rename="camel"):
    ack_id: str


class _Result(msgspec.Struct, rename="camel"):
    ack_id: str
    status: str


class _Settled(msgspec.Struct):
    results: list[_Result]


@click.command()
@click.argument("topic")
@click.argument("group")
@click.option("--max", "most", type=int, help="At most this many; the group's batchSize unless given.")
@click.option("--max-bytes", type=int, help="At most about this many bytes.")
@click.option("--wait-ms", type=int, default=0, show_default=True, help="How long to wait for the first one.")
@click.option("--consumer", metavar="LABEL", help="Who is pulling: the same label may take more of its partition.")
@click.option("--follow", "-f", is_flag=True, help="Go on for ever, over lost connections. --max: how many unacked.")
@click.option("--ack", is_flag=True, help="Ack what was printed. Without it the messages come back after ackTimeoutMs.")
@connected
def pull(
    client: Client,
    output: Output,
    *,
    topic: str,
    group: str,
    most: int | None,
    max_bytes: int | None,
    wait_ms: int,
    consumer: str | None,
    follow: bool,
    ack: bool,
) -> None:
    """Take messages of GROUP and print them, one JSON line each."""
    if follow:
        params = {name: value for name, value in (("max", most), ("consumer", consumer)) if value is not None}
        _follow(client, output, path("topics", topic, "groups", group), params, ack=ack)
        return
    asked = {"max": most, "maxBytes": max_bytes, "waitMs": wait_ms, "consumer": consumer}
    body = {name: value for name, value in asked.items() if value is not None}
    answer = client.call("POST", path("topics", topic, "groups", group, "pull"), body, wait_ms=max(wait_ms, 0))
    pulled = decode(answer, _Pulled)
    for message in pulled.messages:
        output.line(bytes(message))
    # A reader that has gone away ends the command here, before anything is acked that nobody saw.
    output.stream.flush()
    if not pulled.messages:
        click.echo(f"nothing to deliver: {pulled.empty}" + (f". {pulled.limit}" if pulled.limit else ""), err=True)
    elif ack:
        ack_ids = [decode(bytes(message), _Delivered).ack_id for message in pulled.messages]
        _ack(client, path("topics", topic, "groups", group, "ack"), ack_ids)


def _follow(client: Client, output: Output, target: str, params: Mapping[str, str | int], *, ack: bool) -> None:
    for event in followed(client, f"{target}/stream", params, note=note):
        if event.kind != "message":
            continue
        output.line(event.data.encode())
        output.stream.flush()
        if ack:
            try:
                _ack(client, f"{target}/ack", [decode(event.data.encode(), _Delivered).ack_id])
            except (Problem, Unreachable, Failed) as error:  # it comes back, and is printed again
                note(str(error))


def _ack(client: Client, target: str, ack_ids: list[str]) -> None:
    settled = decode(client.call("POST", target, {"ackIds": ack_ids}), _Settled)
    stale = sum(result.status != "ok" for result in settled.results)
    if stale:
        raise Failed(f"{stale} of {len(ack_ids)} messages were not acked: their leases had ended")
