"""``logpost publish``: one message, or a file or stream of JSON lines in batches.

Everything is sent with idempotency keys, so that it may be sent again: after a 503, a restart of the server or a lost
connection, nothing is published twice.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, BinaryIO

import click
import msgspec

from app.cli.batch import MAX_MESSAGES, Batch, LineError, Options, batches
from app.cli.client import CallError, Client, Problem, Unreachable, decode, path
from app.cli.options import Failed, connected_publisher, sentence
from app.cli.output import Output
from app.cli.source import lines_of, opened, progress

NDJSON = (".ndjson", ".jsonl")


class _Result(msgspec.Struct):
    duplicate: bool = False


class _Published(msgspec.Struct):
    results: list[_Result]


class Header(click.ParamType[tuple[str, str]]):
    """``name: value`` or ``name=value``."""

    name = "name:value"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        ends = [end for end in (value.find(":"), value.find("=")) if end > 0]
        if not ends:
            self.fail(f"{value!r} is not like name:value", parameter, context)
        return value[: min(ends)].strip(), value[min(ends) + 1 :].strip()


@click.command()
@click.argument("topic")
@click.argument("message", required=False)
@click.option("--file", "-f", "file", type=click.Path(dir_okay=False), help="Read the message from here; - is stdin.")
@click.option(
    "--ndjson/--no-ndjson", default=None,
    help="Every line of the input is a message. The default for files named *.ndjson and *.jsonl.",
)  # fmt: skip
@click.option("--key", help="The messages' key: what has one key stays in order.")
@click.option("--key-field", metavar="POINTER", help="With --ndjson: where its key is, like orderId or /order/id.")
@click.option("--header", "headers", type=Header(), multiple=True, help="A header of the messages; may be repeated.")
@click.option("--correlation-id", help="The messages' correlationId.")
@click.option(
    "--idempotency-key",
    help="Publishing again with this key changes nothing. With --ndjson it is followed by the number of the line.",
)
@click.option("--idempotency-field", metavar="POINTER", help="With --ndjson: where its idempotency key is.")
@click.option("--delay-ms", type=int, help="Deliver no sooner than this.")
@click.option("--ttl-ms", type=int, help="Do not deliver later than this.")
@click.option("--content-type", help="What one message is, if not JSON.")
@click.option("--batch-size", type=click.IntRange(1, MAX_MESSAGES), default=MAX_MESSAGES, show_default=True,
              help="Most messages of one request.")  # fmt: skip
@click.option("--retry-for-ms", type=click.IntRange(0), default=60_000, show_default=True,
              help="How long to repeat what the server could not take; 0 sends no keys of our own.")  # fmt: skip
@connected_publisher
def publish(client: Client, output: Output, topic: str, message: str | None, file: str | None, **given: Any) -> None:
    """Publish MESSAGE, or what is in a file or on stdin (-), to TOPIC."""
    if message is not None and file is not None:
        raise click.UsageError("give MESSAGE or --file, not both")
    ndjson = given.pop("ndjson")
    if ndjson is None:
        ndjson = file is not None and file.endswith(NDJSON)
    if not ndjson and (given["key_field"] or given["idempotency_field"]):
        raise click.UsageError("--key-field and --idempotency-field need --ndjson")
    if ndjson and given["content_type"]:
        raise click.UsageError("--content-type is for one message; lines are JSON")
    if ndjson and given["idempotency_key"] and given["idempotency_field"]:
        raise click.UsageError("--idempotency-key and --idempotency-field exclude each other")
    with opened(message, file) as source:
        if ndjson:
            _publish_lines(client, output, topic, source, given)
        else:
            _publish_one(client, output, topic, source.read(), given)


def _publish_one(client: Client, output: Output, topic: str, payload: bytes, given: dict[str, Any]) -> None:
    idempotency_key = given["idempotency_key"] or _random_key(given)
    options = {
        "Content-Type": given["content_type"] or "application/json",
        "Partition-Key": given["key"],
        "Idempotency-Key": idempotency_key,
        "Correlation-Id": given["correlation_id"],
        "Delay-Ms": given["delay_ms"],
        "Ttl-Ms": given["ttl_ms"],
        **{f"Message-Header-{name}": value for name, value in given["headers"]},
    }
    headers = [(name, _sendable(name, str(value))) for name, value in options.items() if value is not None]
    answer = client.insist(
        lambda: client.call("POST", path("topics", topic, "messages"), content=payload, headers=headers),
        patience_ms=given["retry_for_ms"] if idempotency_key else 0,
    )
    output.document(answer)


def _publish_lines(client: Client, output: Output, topic: str, source: BinaryIO, given: dict[str, Any]) -> None:
    options = _line_options(given)
    patience_ms = given["retry_for_ms"] if options.idempotency_prefix or options.idempotency_field else 0
    published = duplicates = 0
    started = time.monotonic()
    with progress(source) as advance:
        try:
            for batch in batches(lines_of(source), options, most=given["batch_size"]):
                results = _publish_batch(client, topic, batch, patience_ms)
                published += len(results)
                duplicates += sum(result.duplicate for result in results)
                advance(batch)
        except (CallError, LineError) as error:
            raise Failed(f"{error}; {published} messages before it are published") from error
    seconds = max(time.monotonic() - started, 1e-6)
    summary = {"published": published - duplicates, "duplicates": duplicates,
               "seconds": round(seconds, 3), "perSecond": round(published / seconds)}  # fmt: skip
    output.document(msgspec.json.encode(summary))


def _publish_batch(client: Client, topic: str, batch: Batch, patience_ms: int) -> list[_Result]:
    target = path("topics", topic, "messages", "batch")
    try:
        answer = client.insist(lambda: client.call("POST", target, content=batch.body), patience_ms=patience_ms)
    except Problem as problem:
        at_fault = sorted({batch.lines[fault["index"]] for fault in problem.faults if _in(batch, fault.get("index"))})
        raise CallError(f"{_lines(at_fault or batch.lines)}: {sentence(problem)}") from problem
    except Unreachable as error:
        raise CallError(f"{_lines(batch.lines)}: {error}") from error
    return decode(answer, _Published).results


def _lines(numbers: list[int]) -> str:
    """``line 7``, ``lines 7, 9``, ``lines 1 to 1000``."""
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    return "lines " + (", ".join(map(str, numbers)) if len(numbers) < 10 else f"{numbers[0]} to {numbers[-1]}")


def _in(batch: Batch, index: object) -> bool:
    return isinstance(index, int) and 0 <= index < len(batch.lines)


def _line_options(given: dict[str, Any]) -> Options:
    fixed = {
        "partitionKey": given["key"],
        "correlationId": given["correlation_id"],
        "headers": dict(given["headers"]) or None,
        "delayMs": given["delay_ms"],
        "ttlMs": given["ttl_ms"],
    }
    return Options(
        fixed={name: value for name, value in fixed.items() if value is not None},
        key_field=given["key_field"],
        idempotency_field=given["idempotency_field"],
        idempotency_prefix=given["idempotency_key"] or _random_key(given),
    )


def _random_key(given: dict[str, Any]) -> str | None:
    """What makes repeating safe where the publisher has no key; nothing where it shall not be repeated."""
    return f"cli-{secrets.token_hex(12)}" if given["retry_for_ms"] else None


def _sendable(name: str, value: str) -> str:
    """An HTTP header loses white space at its ends, and cannot have control characters."""
    if value != value.strip(" \t") or any(ord(letter) < 0x20 or ord(letter) == 0x7F for letter in value):
        raise Failed(f"{name}: {value!r} cannot be sent as a header; --ndjson sends it as JSON")
    return value
