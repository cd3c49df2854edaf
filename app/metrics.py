"""Counters for Prometheus: what happened to messages and to groups, and what went wrong in the background.

Names are few and labels are bounded: none carries a topic, a group or a key, whose number is the users' to choose
(lag and backlog of a group are at its ``/stats``). A counter is touched once per batch, not per message.

One process keeps its counters in memory. Several workers behind one port share theirs through files in the directory
that ``PROMETHEUS_MULTIPROC_DIR`` names (see ``shared``): whichever of them is asked answers for all, and what a worker
counted outlives it. A second replica has its own, as is usual: sum over them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST

REGISTRY = CollectorRegistry()

# Looking a child up by its label costs more than counting: each is looked up once, here.
_messages = Counter(
    "logpost_messages", "Messages by what happened to them (deliveries, where a group is concerned).", ["event"],
    registry=REGISTRY,
)  # fmt: skip
published = _messages.labels("published")
duplicate = _messages.labels("duplicate")
claimed = _messages.labels("claimed")
acked = _messages.labels("acked")
nacked = _messages.labels("nacked")
discarded = _messages.labels("discarded")
dead = _messages.labels("dead")
redriven = _messages.labels("redriven")
filtered = _messages.labels("filtered")
expired = _messages.labels("expired")
lost = _messages.labels("lost")
trimmed = _messages.labels("trimmed")
purged = _messages.labels("purged")
repaired = _messages.labels("repaired")

_hooks = Counter("logpost_hooks", "Events that hooks took, and those that were given up.", ["outcome"],
                 registry=REGISTRY)  # fmt: skip
hook_taken = _hooks.labels("taken")
hook_given_up = _hooks.labels("given_up")

_operations = Counter("logpost_operations", "Calls that changed where or whether a group reads.", ["verb"],
                      registry=REGISTRY)  # fmt: skip
seek = _operations.labels("seek")
purge = _operations.labels("purge")
paused = _operations.labels("pause")
resumed = _operations.labels("resume")

_loop_failures = Counter("logpost_loop_failures", "Passes of a background loop that failed.", ["loop"],
                         registry=REGISTRY)  # fmt: skip
_task_crashes = Counter("logpost_task_crashes", "Background tasks that ended by an error and were started again.",
                        ["task"], registry=REGISTRY)  # fmt: skip


def loop_failed(name: str) -> None:
    _loop_failures.labels(_kind(name)).inc()


def task_crashed(name: str) -> None:
    _task_crashes.labels(_kind(name)).inc()


def _kind(name: str) -> str:
    """``push:17`` → ``push``: there is a task per group, and one series for all of them."""
    return name.partition(":")[0]


@contextmanager
def shared() -> Iterator[dict[str, str]]:
    """The environment to start workers with, so that they share their counters until the end of the block.

    For the supervising process: a worker that it starts anew goes on from what the one before it counted.
    """
    with tempfile.TemporaryDirectory(prefix="logpost-metrics-") as directory:
        yield {DIRECTORY_VARIABLE: directory}


def render() -> bytes:
    """All counters in Prometheus' text format (``CONTENT_TYPE``). Reads files and takes milliseconds: not for the
    event loop, call it in a thread."""
    if DIRECTORY_VARIABLE not in os.environ:
        return generate_latest(REGISTRY)
    everyone = CollectorRegistry()
    MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
    return generate_latest(everyone)
