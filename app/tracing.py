"""Traces with OpenTelemetry, where it is installed (``logpost[otel]``) and configured (``OTEL_*``). Else nothing of it
is imported, and nothing here is called.

    caller ─▶ publish ─▶ kept with the message ─▶ deliver, once for each attempt ─▶ receiver
    caller ─▶ pull, ack, nack, discard, extend, settle

Each is the child of what it stands behind, by W3C Trace Context, also across days and replicas. A message that was
published without a trace begins one. Names follow the semantic conventions for messaging; nothing of a message's
content, key or headers is in a span.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from app.domain.errors import LogpostError, Unavailable
from app.telemetry import log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
CARRIED = ("traceparent", "tracestate")
CARRIED_BYTES = {name.encode() for name in CARRIED}
# At the end: for what was not exported yet.
FLUSH_S = 3.0

RawHeaders = Iterable[tuple[bytes, bytes]]
# A call of the lane (api/lane.py).
Call = Callable[[Any, Sequence[str], RawHeaders, Any], Awaitable[tuple[int, bytes]]]


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether spans have somewhere to go: an OTLP endpoint, or ``OTEL_TRACES_EXPORTER=otlp`` and its default."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter == "otlp"
    return any(environment.get(name) for name in ENDPOINTS)


def start() -> Tracing | None:
    """As the environment says; None for no tracing."""
    if not is_wanted(os.environ):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        log.warning("tracing_not_installed", install="logpost[otel]")
        return None
    # What the environment says of the resource, the sampler and the exporter, the SDK reads itself.
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "logpost"}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


@asynccontextmanager
async def tracing() -> AsyncIterator[Tracing | None]:
    """``start``, and what is left is exported at the end."""
    started = start()
    try:
        yield started
    finally:
        if started is not None:
            await started.close()


class Tracing:
    """Spans of one process."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider = provider
        self._tracer = provider.get_tracer("logpost")
        self._nowhere = Context()
        self._propagator = TraceContextTextMapPropagator()
        self._around = trace.set_span_in_context
        self._kinds = trace.SpanKind
        self._failed = trace.StatusCode.ERROR

    async def close(self) -> None:
        # A thread that nobody has to wait for: a collector that is away must not keep the process from ending.
        flushing = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, FLUSH_S)
        if flushing.is_alive():
            log.warning("spans_not_exported")

    def traced(self, path: str, call: Call) -> Call:
        """The call of the lane with a span around it. A publish hands its own on, to be kept with the message."""
        operation = "publish" if path.startswith("messages") else path.rpartition("/")[2]

        async def traced(caller: Any, names: Sequence[str], headers: RawHeaders, receive: Any) -> tuple[int, bytes]:
            attributes = {
                "messaging.system": "logpost",
                "messaging.operation.name": operation,
                "messaging.destination.name": names[0],
            }
            if len(names) > 1:
                attributes["messaging.consumer.group.name"] = names[1]
            carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in CARRIED_BYTES}
            with self._span(f"{operation} {names[0]}", carrier, self._kinds.SERVER, attributes) as span:
                if operation == "publish" and span.is_recording():
                    ours = [(name.encode(), value.encode()) for name, value in self._carrier(span).items()]
                    headers = [*(header for header in headers if header[0] not in CARRIED_BYTES), *ours]
                try:
                    status, body = await call(caller, names, headers, receive)
                except Exception as error:
                    self._note(span, error)
                    raise
                span.set_attribute("http.response.status_code", status)
                return status, body

        return traced

    @contextmanager
    def delivering(self, url: str, headers: Sequence[tuple[str, str]]) -> Iterator[Delivering]:
        """A span around one attempt at pushing a message, whose trace stands in the request's headers."""
        said = {name.lower(): value for name, value in headers}
        topic = said.get("logpost-topic", "")
        attributes: dict[str, str | int] = {
            "messaging.system": "logpost",
            "messaging.operation.name": "deliver",
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": said.get("logpost-partition", ""),
            "messaging.consumer.group.name": said.get("logpost-group", ""),
            "messaging.message.id": said.get("webhook-id", ""),
            "logpost.attempt": int(said.get("logpost-attempt", "0")),
            "server.address": urlsplit(url).hostname or "",
        }
        with self._span(f"deliver {topic}", said, self._kinds.CLIENT, attributes) as span:
            kept = [header for header in headers if header[0].lower() not in CARRIED]
            yield Delivering(span, (*kept, *self._carrier(span).items()), self._failed)

    @contextmanager
    def _span(
        self, name: str, carrier: Mapping[str, str], kind: Any, attributes: Mapping[str, str | int]
    ) -> Iterator[Span]:
        parent = self._propagator.extract(carrier, self._nowhere)
        with self._tracer.start_as_current_span(
            name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            yield span

    def _carrier(self, span: Span) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._around(span))
        return carrier

    def _note(self, span: Span, error: Exception) -> None:
        """What a caller did wrong is no failure of ours."""
        code = error.code if isinstance(error, LogpostError) else None
        span.set_attribute("error.type", code or type(error).__name__)
        if code is None or isinstance(error, Unavailable):
            span.set_status(self._failed)


class Delivering:
    """``headers``: those to send, with this attempt's span as the parent of the receiver's."""

    def __init__(self, span: Span, headers: tuple[tuple[str, str], ...], failed: Any) -> None:
        self.headers = headers
        self._span = span
        self._failed = failed

    def ended(self, status: int | None, error: str | None) -> None:
        """``error``: the class of what went wrong."""
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if error is not None:
            self._span.set_attribute("error.type", str(status) if error == "status" else error)
            self._span.set_status(self._failed)
