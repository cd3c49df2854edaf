"""Counters: what every worker counted is in the answer of whichever is asked."""

from __future__ import annotations

import os
import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

from app import metrics
from tests.servers import ROOT

EVENTS = {"published", "claimed", "acked", "nacked", "dead", "discarded", "filtered", "expired", "trimmed", "repaired"}
VERBS = {"seek", "purge", "pause", "resume"}

COUNT = "from app import metrics; metrics.published.inc(3); metrics.task_crashed('push:17')"
RENDER = "import sys; from app import metrics; sys.stdout.buffer.write(metrics.render())"


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, next(iter(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_every_event_has_a_counter_from_the_start() -> None:
    counted = samples(metrics.render().decode())
    assert {label for name, label in counted if name == "logpost_messages_total"} >= EVENTS
    assert {label for name, label in counted if name == "logpost_operations_total"} >= VERBS


def test_workers_share_their_counters_and_those_of_the_dead_stay() -> None:
    with metrics.shared() as variables:
        environment = os.environ | variables
        for _ in range(2):
            run(COUNT, environment)
        counted = samples(run(RENDER, environment))
        assert counted["logpost_messages_total", "published"] == 6
        assert counted["logpost_task_crashes_total", "push"] == 2  # one series for the tasks of all groups
    with metrics.shared() as variables:  # another start of the server counts from zero
        assert samples(run(RENDER, os.environ | variables))["logpost_messages_total", "published"] == 0


def run(code: str, environment: dict[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
