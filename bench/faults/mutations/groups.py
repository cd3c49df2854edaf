"""Mutations of what a group is given and how it settles: I7 to I13, I18."""

from __future__ import annotations

from itertools import pairwise

from bench.faults.history import MS, SECOND, Event, option
from bench.faults.mutations.copy import Copy, mutation


@mutation("I7")
def deliver_a_key_out_of_order(history: Copy) -> None:
    deliveries = history.all("deliver", group="by-key", att=1)
    one = history.some(e for e in deliveries if e.key and any(_follows(e, other) for other in deliveries))
    later = history.some(other for other in deliveries if _follows(one, other))
    history.shift(later, one.t1 - 50 * MS)


def _follows(one: Event, other: Event) -> bool:
    apart = other.t1 - one.t1 > 200 * MS
    return one.key == other.key and one.part == other.part and (other.off or 0) > (one.off or 0) and apart


@mutation("I7")
def overtake_a_message_that_is_retrying(history: Copy) -> None:
    deliveries = history.all("deliver", group="by-partition", att=1)
    pairs = [pair for pair in history.pairs("by-partition") if pair[0].key and pair[1].t1 - pair[2].t1 > 150 * MS]
    _, second, nack = history.random.choice(pairs)
    later = history.some(e for e in deliveries if _follows(second, e))
    history.shift(later, nack.t1 + 60 * MS)


@mutation("I8")
def give_a_partition_to_two(history: Copy) -> None:
    held = history.some(history.expired("by-partition"))
    deliveries = history.all("deliver", group="by-partition", part=held.part)
    other = history.some(e for e in deliveries if e.cons != held.cons and e.t1 > held.exp)
    history.shift(other, held.t1 + 40 * MS)


@mutation("I8")
def give_a_key_to_two(history: Copy) -> None:
    one, ack = _long_held(history, "by-key")
    deliveries = history.all("deliver", group="by-key", part=one.part, key=one.key)
    other = history.some(e for e in deliveries if e.cons != one.cons and e.t1 > ack.t1)
    history.shift(other, ack.t0 - 60 * MS)


@mutation("I8")
def give_a_message_to_two(history: Copy) -> None:
    one, ack = _long_held(history, "any")
    copy = history.add(one, cons="another", tok=f"{one.tok}+")
    history.shift(copy, ack.t0 - 60 * MS)


def _long_held(history: Copy, group: str) -> tuple[Event, Event]:
    found = [pair for pair in history.acked(group=group) if pair[0].key and pair[1].t0 - pair[0].t1 > 200 * MS]
    return history.random.choice(found)


@mutation("I9")
def accept_an_ack_after_its_deadline(history: Copy) -> None:
    late = {event.tok: event for event in history.expired("any")}
    refused = [e for e in history.all("ack", type="fail", group="any") if e.tok in late and e.t0 > late[e.tok].exp]
    history.some(refused).type = "ok"


@mutation("I9")
def accept_an_ack_after_the_next_delivery(history: Copy) -> None:
    first, second, _ = history.random.choice(history.pairs("by-key"))
    history.add(
        second, f="ack", type="ok", tok=first.tok, t0=second.t1 + MS, t1=second.t1 + 2 * MS, off=None, val=None, exp=0
    )


@mutation("I9")
def accept_an_ack_after_a_nack(history: Copy) -> None:
    first, second, nack = history.random.choice(history.pairs("any"))
    assert second.t1 > nack.t1
    history.add(nack, f="ack", tok=first.tok, t0=nack.t1 + MS, t1=nack.t1 + 2 * MS)


@mutation("I9")
def accept_a_nack_after_an_ack(history: Copy) -> None:
    _, ack = history.random.choice(history.acked(group="any"))
    history.add(ack, f="nack", t0=ack.t1 + MS, t1=ack.t1 + 2 * MS)


@mutation("I9")
def give_an_ack_id_twice(history: Copy) -> None:
    delivery = history.some(history.all("deliver", group="any"))
    history.shift(history.add(delivery), delivery.t1 + 100 * MS)


@mutation("I9")
def accept_an_ack_across_a_seek(history: Copy) -> None:
    seek = history.some(history.all("seek")[1:])
    before = [e for e in history.expired("sought") if e.t1 < seek.t0 and e.exp > seek.t1 + 50 * MS]
    delivery = history.some(before)
    history.add(delivery, f="ack", t0=seek.t1 + 5 * MS, t1=seek.t1 + 6 * MS, off=None, val=None, exp=0)


@mutation("I9")
def ignore_a_seek(history: Copy) -> None:
    seek = history.some(history.all("seek")[1:-1])
    after = history.some(e for e in history.all("deliver", group="sought") if seek.t1 < e.t0 < seek.t1 + 2 * SECOND)
    after.epoch -= 1


@mutation("I9")
def begin_an_epoch_without_a_seek(history: Copy) -> None:
    history.some(history.all("deliver", group="by-key")).epoch = 2


@mutation("I10")
def commit_what_is_unsettled(history: Copy) -> None:
    snapshots = [e for e in history.all("snapshot", cons="poll", group="by-key") if (option(e, "lag") or 0) > 5]
    snapshot = history.some(snapshots)
    snapshot.off = option(snapshot, "lastOffset")


@mutation("I10")
def commit_the_highest_ack(history: Copy) -> None:
    acks = history.acked(group="by-partition")
    for snapshot in history.all("snapshot", group="by-partition", cons="poll"):
        highest = max((d.off or 0 for d, ack in acks if d.part == snapshot.part and ack.t1 < snapshot.t0), default=0)
        snapshot.off = max(snapshot.off or 0, highest)


@mutation("I11")
def let_the_cursor_fall(history: Copy) -> None:
    snapshots = history.all("snapshot", group="any", part=0, cons="poll")
    rising = [b for a, b in pairwise(snapshots) if (a.off or 0) > 3]
    snapshot = history.some(rising)
    snapshot.off = 1


@mutation("I12")
def deliver_what_was_acknowledged(history: Copy) -> None:
    delivery, ack = history.random.choice(history.acked(group="any"))
    history.shift(history.add(delivery, tok=f"{delivery.tok}+"), ack.t1 + 500 * MS)


@mutation("I12")
def deliver_what_is_in_flight(history: Copy) -> None:
    delivery, ack = _long_held(history, "by-key")
    history.shift(history.add(delivery, tok=f"{delivery.tok}+"), ack.t0 - 60 * MS)


@mutation("I13")
def forget_to_count_a_failure(history: Copy) -> None:
    first, second, _ = history.random.choice(history.pairs("any"))
    second.att = first.att


@mutation("I13")
def count_backwards(history: Copy) -> None:
    pairs = [pair for pair in history.pairs("by-key") if pair[0].att == 1]
    first, second, _ = history.random.choice(pairs)
    first.att, second.att = 2, 1


@mutation("I13")
def burn_an_attempt(history: Copy) -> None:
    lost = history.all("pull", type="info", group="by-key")
    pairs = [
        pair
        for pair in history.pairs("by-key")
        if pair[1].att == 2 and not any(pair[0].t0 <= pull.t0 <= pair[1].t1 for pull in lost)
    ]
    history.random.choice(pairs)[1].att = 3


@mutation("I13")
def give_too_many_attempts(history: Copy) -> None:
    history.some(history.all("deliver", group="any", att=2)).att = 3


@mutation("I13")
def bury_without_a_dead_letter(history: Copy) -> None:
    last = {e.tok: e for e in history.all("deliver", group="any", att=2)}
    redriven = {(e.part, e.off) for e in history.all("redrive", group="any")}
    nacked = [last[e.tok] for e in history.all("nack", type="ok", group="any") if e.tok in last]
    one = history.some(e for e in nacked if (e.part, e.off) not in redriven)
    history.drop(*history.all("dlq", group="any", part=one.part, off=one.off))


@mutation("I13")
def bury_what_was_acknowledged(history: Copy) -> None:
    delivery, ack = history.random.choice(history.acked(group="by-key", att=1))
    history.add(delivery, f="dlq", att=3, exp=ack.t1 + SECOND, cons="final", tok=None)


@mutation("I13")
def bury_before_the_last_attempt(history: Copy) -> None:
    history.some(history.all("dlq", group="by-key")).att = 2


@mutation("I18")
def retry_at_once(history: Copy) -> None:
    lost = history.all("pull", type="info", group="by-partition")
    pairs = [
        pair
        for pair in history.pairs("by-partition")
        if pair[2].ms is None and not any(pair[0].t0 <= pull.t0 <= pair[1].t1 for pull in lost)
    ]
    _, second, nack = history.random.choice(pairs)
    history.shift(second, nack.t1 + 30 * MS)


@mutation("I18")
def deliver_before_the_delay(history: Copy) -> None:
    delayed = {e.val: e for e in history.all("publish", type="ok") if option(e, "delayMs")}
    delivery = history.some(e for e in history.all("deliver", group="any", att=1) if e.val in delayed)
    history.shift(delivery, delayed[delivery.val].t1 + 50 * MS)
