"""Logs: one JSON object per event and line, on stderr. ``from app.telemetry import log``.

An event is a short name with fields, not a sentence: ``log.info("worker_died", pid=7, code=-9)``. Every control
character is escaped, so that no field can start a line of its own or drive a terminal. Libraries that use the standard
library's logging (uvicorn, asyncio, aiohttp) end in the same lines.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Any, TextIO

import orjson
import structlog
from structlog.types import EventDict, Processor

log: structlog.stdlib.BoundLogger = structlog.get_logger()

# The request that is being answered, in every line it causes; empty outside of one.
REQUEST: ContextVar[str] = ContextVar("request", default="")
# Whose key it came with: the key's id, or "root".
CALLER: ContextVar[str] = ContextVar("caller", default="")

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# What JSON leaves as it is and a terminal or a line splitter does not: DEL, the C1 controls, the Unicode line ends.
ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


# Holds the level; lines of our own do not go through it.
_gauge = logging.getLogger("logpost")


def tells_debug() -> bool:
    """Whether events at debug go anywhere: where there are many, asking is much cheaper than telling."""
    return _gauge.isEnabledFor(logging.DEBUG)


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Sends this process's logs to ``stream`` (stderr). ``level``: debug, info, warning or error."""
    _gauge.setLevel(LEVELS[level])
    out = stream or sys.stderr
    shared: list[Processor] = [
        _request_named,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.ExceptionRenderer(),
        _readable_order,
    ]
    structlog.configure(
        processors=[*shared, _to_text],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),  # one write a line: processes share a stderr
        cache_logger_on_first_use=False,
    )
    library_lines = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared, _to_text],
    )
    library_handler = logging.StreamHandler(out)
    library_handler.setFormatter(library_lines)
    logging.root.handlers = [library_handler]
    # Libraries report their routine at info; ours is what the reader of these logs wants.
    logging.root.setLevel(max(LEVELS[level], logging.WARNING))


def _request_named(_logger: Any, _method: str, event: EventDict) -> EventDict:
    if request_id := REQUEST.get():
        event["request_id"] = request_id
        if caller := CALLER.get():
            event["caller"] = caller
    return event


def _readable_order(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Time, level and event first: that is what an eye looks for."""
    ordered: EventDict = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    ordered.update(event)
    return ordered


def _to_text(_logger: Any, _method: str, event: EventDict) -> str:
    try:
        text = _dump(event)
    except (TypeError, ValueError):
        # A lone surrogate, an integer past 64 bits, a cycle: an event must not be lost for how one field looks.
        text = _dump({str(key): value if _fits(value) else ascii(value) for key, value in event.items()})
    return text.translate(ESCAPED)


def _dump(event: Any) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


def _fits(value: object) -> bool:
    try:
        _dump(value)
    except (TypeError, ValueError):
        return False
    return True
