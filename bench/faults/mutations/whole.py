"""Mutations of the run as a whole: I15, I16, I19."""

from __future__ import annotations

from bench.faults.history import SECOND
from bench.faults.mutations.copy import Copy, mutation


@mutation("I15")
def let_a_hanging_group_slow_down_another(history: Copy) -> None:
    hang = history.all("fault", val="hang any")[0]
    for delivery in history.all("deliver", group="by-key", att=1):
        if hang.t0 <= delivery.t0 <= hang.t1:
            history.shift(delivery, delivery.t1 + 8 * SECOND)


@mutation("I16")
def never_come_to_rest(history: Copy) -> None:
    history.all("quiesce")[0].type = "fail"


@mutation("I16")
def leave_something_in_flight(history: Copy) -> None:
    snapshot = history.some(history.all("snapshot", cons="final"))
    snapshot.data = (snapshot.data or {}) | {"lag": 1}


@mutation("I16")
def never_deliver_a_message_to_one_group(history: Copy) -> None:
    dead = {(e.part, e.off) for e in history.all("dlq")}
    one = history.some(e for e in history.all("deliver", group="any") if (e.part, e.off) not in dead)
    history.drop(*history.all("deliver", group="any", part=one.part, off=one.off))


@mutation("I16")
def forget_that_a_message_was_settled(history: Copy) -> None:
    delivery, ack = history.random.choice(history.acked(group="any", att=1))
    assert delivery.tok == ack.tok
    history.drop(ack)


@mutation("I19")
def leak_memory(history: Copy) -> None:
    for number, sample in enumerate(history.all("sample")):
        assert sample.data is not None
        values = sample.data["replica-1/1"]
        sample.data["replica-1/1"] = values | {"rss": values["rss"] + number * 700_000}


@mutation("I19")
def keep_connections_open(history: Copy) -> None:
    for sample in history.all("sample")[-5:]:
        assert sample.data is not None
        sample.data["replica-1/1"] = sample.data["replica-1/1"] | {"connections": 20}
