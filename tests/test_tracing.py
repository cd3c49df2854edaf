"""Traces: from a publish to its delivery and on, and nothing of OpenTelemetry where nobody asked for it."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, format_span_id, format_trace_id

from app import telemetry, tracing
from app.tracing import Tracing, is_wanted
from tests.app_client import serving
from tests.misbehaviour import answer
from tests.push.world import TOPIC, World, replicated
from tests.receiver import Receiver
from tests.servers import clean_environment, wait_until

TRACE_ID, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACE, STATE = f"00-{TRACE_ID}-{CALLER}-01", "vendor=value,other=1"
PULLED = f"{TOPIC}/groups/pulled"


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", *tracing.ENDPOINTS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where the spans of the server go that is started next."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "start", lambda: Tracing(provider))
    return exporter


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def world(exporter: InMemorySpanExporter, dsn: str, receiver: Receiver) -> AsyncIterator[World]:
    async with replicated(dsn, receiver, 1) as world:
        await world.topic()
        yield world


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else as_header(span.parent)


def context_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return as_header(context)


def as_header(context: SpanContext) -> str:
    flags = context.trace_flags
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{flags:02x}"


async def test_a_push_is_in_the_trace_of_its_publish_with_a_span_for_each_attempt(
    world: World, exporter: InMemorySpanExporter
) -> None:
    world.receiver.behave(answer(500), times=1)
    await world.group()
    headers = {"traceparent": TRACE, "tracestate": STATE, "partition-key": "secret-key"}
    published = await world.client.post(f"{TOPIC}/messages", json="secret-payload", headers=headers)
    await world.settled()
    await wait_until(lambda: len(named(exporter, "deliver orders")) == 2)
    (publish,), deliveries = named(exporter, "publish orders"), named(exporter, "deliver orders")
    assert (parent_of(publish), publish.kind) == (TRACE, SpanKind.SERVER)
    assert [parent_of(span) for span in deliveries] == [context_of(publish)] * 2
    assert [span.kind for span in deliveries] == [SpanKind.CLIENT] * 2
    assert [span.status.status_code for span in deliveries] == [StatusCode.ERROR, StatusCode.UNSET]
    first, second = (dict(span.attributes or {}) for span in deliveries)
    assert first["error.type"] == "500"
    assert first["messaging.message.id"] == published.json()["id"]
    assert (first["logpost.attempt"], second["logpost.attempt"]) == (1, 2)
    assert second["http.response.status_code"] == 200
    requests = world.receiver.requests
    assert [request.header("traceparent") for request in requests] == [context_of(span) for span in deliveries]
    assert [request.header("tracestate") for request in requests] == [STATE] * 2
    assert "secret" not in str([(span.name, span.attributes) for span in exporter.get_finished_spans()])


async def test_a_message_that_was_published_without_a_trace_begins_one(
    world: World, exporter: InMemorySpanExporter
) -> None:
    await world.client.put(PULLED, json={"startFrom": "earliest"})
    await world.client.post(f"{TOPIC}/messages", json="a")
    (message,) = (await world.post(f"{PULLED}/pull"))["messages"]
    (publish,) = named(exporter, "publish orders")
    assert publish.parent is None
    assert message["headers"] == {"traceparent": context_of(publish)}


async def test_pulls_and_settlements_are_in_their_callers_trace(world: World, exporter: InMemorySpanExporter) -> None:
    await world.client.put(PULLED, json={"startFrom": "earliest"})
    await world.publish("a", "b")
    world.client.headers["traceparent"] = TRACE
    ack_ids = [message["ackId"] for message in (await world.post(f"{PULLED}/pull"))["messages"]]
    await world.post(f"{PULLED}/extend", {"ackIds": ack_ids})
    await world.post(f"{PULLED}/ack", {"ackIds": ack_ids[:1]})
    await world.post(f"{PULLED}/settle", {"discard": [{"ackId": ack_ids[1]}]})
    spans = [span for span in exporter.get_finished_spans() if span.parent is not None]
    assert [span.name for span in spans] == ["pull orders", "extend orders", "ack orders", "settle orders"]
    assert {parent_of(span) for span in spans} == {TRACE}
    assert {(span.attributes or {})["messaging.consumer.group.name"] for span in spans} == {"pulled"}


async def test_what_a_caller_does_wrong_is_told_and_no_failure_of_ours(
    world: World, exporter: InMemorySpanExporter
) -> None:
    assert (await world.client.post(f"{TOPIC}/messages", content=b"{")).status_code == 400
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "invalid_json"
    assert (span.status.status_code, list(span.events)) == (StatusCode.UNSET, [])


async def test_a_trace_that_is_not_sampled_is_carried_and_not_recorded(
    world: World, exporter: InMemorySpanExporter
) -> None:
    await world.group()
    unsampled = TRACE.removesuffix("01") + "00"
    await world.client.post(f"{TOPIC}/messages", json="a", headers={"traceparent": unsampled})
    (request,) = await world.receiver.received(1)
    assert request.header("Message-Header-traceparent") == unsampled
    sent = request.header("traceparent") or ""
    assert (sent[:35], sent[-2:]) == (unsampled[:35], "00")
    assert exporter.get_finished_spans() == ()


async def test_a_traceparent_that_a_group_configures_is_sent_as_it_is(world: World) -> None:
    await world.group(delivery={"headers": {"Traceparent": "mine"}})
    await world.client.post(f"{TOPIC}/messages", json="a", headers={"traceparent": TRACE})
    (request,) = await world.receiver.received(1)
    assert [value for name, value in request.headers if name.lower() == "traceparent"] == ["mine"]


async def test_tracestate_goes_with_traceparent_only_and_never_costs_a_header_of_the_message(
    dsn: str, receiver: Receiver
) -> None:
    async with replicated(dsn, receiver, 1) as world:
        await world.topic()
        await world.group()
        full = {f"message-header-{at}": "x" for at in range(32)}
        for headers in (
            [("traceparent", TRACE), ("tracestate", "a=1"), ("tracestate", "b=2")],
            [("traceparent", TRACE), ("tracestate", "x" * 600)],
            [("tracestate", STATE)],
            [("traceparent", TRACE), *full.items()],
        ):
            published = await world.client.post(f"{TOPIC}/messages", json="a", headers=headers)
            assert published.status_code == 201, published.text
        requests = await receiver.received(4)
        assert [request.header("traceparent") for request in requests] == [TRACE, TRACE, None, None]
        assert [request.header("tracestate") for request in requests] == ["a=1,b=2", None, None, None]


async def test_spans_go_where_the_environment_says(
    dsn: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url.removesuffix("/hook"))
    async with serving(dsn) as client:
        await client.put(TOPIC)
        await client.post(f"{TOPIC}/messages", json="a", headers={"traceparent": TRACE})
    assert {request.path for request in receiver.requests} == {"/v1/traces"}  # exported before the end
    exported = b"".join(request.body for request in receiver.requests)
    assert b"publish orders" in exported
    assert b"logpost" in exported
    assert bytes.fromhex(TRACE_ID) in exported


def test_a_collector_that_is_away_keeps_no_process_from_ending() -> None:
    code = (
        "import asyncio, time, app.tracing as tracing\n"
        "tracing.FLUSH_S = 0.1\n"
        "traces = tracing.start()\n"
        "traces._provider.shutdown = lambda: time.sleep(3600)\n"
        "asyncio.run(traces.close())\n"
    )
    environment = clean_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )  # fmt: skip
    assert "spans_not_exported" in run.stdout + run.stderr


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "mine"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
    ],
)
def test_tracing_is_on_where_spans_have_somewhere_to_go(environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environment) is wanted


def test_where_nobody_asks_for_it_nothing_of_it_is_imported() -> None:
    code = "import sys, app.main, app.tracing; assert app.tracing.start() is None; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment({}), capture_output=True, text=True, check=True
    )  # fmt: skip
    assert "app.main" in run.stdout.split()
    assert not [name for name in run.stdout.split() if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    telemetry.configure("info", out)
    yield out
    telemetry.configure("warning")


def test_whoever_asks_for_it_without_having_it_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert tracing.start() is None
    assert "logpost[otel]" in log.getvalue()
