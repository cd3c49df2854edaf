"""Mutations of the log and of what readers see of it: I1 to I6, I14, I17, I20."""

from __future__ import annotations

from bench.faults.good import TOPIC
from bench.faults.history import MS
from bench.faults.mutations.copy import Copy, mutation


@mutation("I1")
def lose_an_acknowledged_message_everywhere(history: Copy) -> None:
    value = history.some(history.all("publish", type="ok", topic=TOPIC)).val
    history.drop(*(e for e in history.events if e.val == value and e.f != "publish"))


@mutation("I1")
def lose_an_acknowledged_message_at_the_end(history: Copy) -> None:
    audits = history.all("read", cons="audit:final", topic=TOPIC)
    last = max(audits, key=lambda e: (e.part == 0, e.off))
    history.drop(last)
    history.all("audit", cons="audit:final", topic=TOPIC, part=0)[0].off = (last.off or 0) - 1


@mutation("I1")
def lose_an_acknowledged_message_for_a_while(history: Copy) -> None:
    history.drop(history.some(history.all("read", cons="audit:1")))


@mutation("I2")
def read_what_nobody_wrote(history: Copy) -> None:
    history.some(history.all("read", cons="audit:final")).val = "w9-1"


@mutation("I2")
def read_what_was_refused(history: Copy) -> None:
    value = history.some(history.all("read", cons="audit:final", topic=TOPIC)).val
    for publish in history.publishes(value):
        publish.type, publish.status = "fail", 422


@mutation("I3")
def deliver_another_message_at_an_offset(history: Copy) -> None:
    one = history.some(history.all("deliver", group="any"))
    other = history.some(e for e in history.all("deliver", group="any", part=one.part) if e.val != one.val)
    one.val, one.sha, one.key = other.val, other.sha, other.key


@mutation("I3")
def acknowledge_another_offset(history: Copy) -> None:
    publish = history.some(e for e in history.all("publish", type="ok", topic=TOPIC) if (e.off or 0) > 5)
    publish.off = (publish.off or 0) - 1


@mutation("I3")
def bury_another_message(history: Copy) -> None:
    entry = history.some(history.all("dlq"))
    other = history.some(e for e in history.all("read", cons="audit:final", part=entry.part) if e.val != entry.val)
    entry.val, entry.key, entry.sha = other.val, other.key, other.sha


@mutation("I4")
def leave_a_gap(history: Copy) -> None:
    for read in history.all("read", cons="audit:final", part=1):
        if (read.off or 0) > 20:
            read.off = (read.off or 0) + 1


@mutation("I4")
def store_a_message_twice(history: Copy) -> None:
    reads = history.all("read", cons="audit:final", part=1)
    reads[10].val, reads[10].sha, reads[10].key = reads[9].val, reads[9].sha, reads[9].key


@mutation("I4")
def list_an_offset_twice(history: Copy) -> None:
    history.add(history.some(history.all("read", cons="audit:final")))


@mutation("I4")
def end_before_the_end(history: Copy) -> None:
    audit = history.some(history.all("audit", cons="audit:final"))
    audit.off = (audit.off or 0) + 1


@mutation("I5")
def put_a_later_publish_before_an_earlier_one(history: Copy) -> None:
    publishes = sorted(history.all("publish", type="ok", part=1, topic=TOPIC, dup=False), key=lambda e: e.off or 0)
    at = history.random.randrange(10, len(publishes) - 10)
    early, late = publishes[at], publishes[at + 1]
    for publish in history.publishes(early.val):
        publish.t0, publish.t1 = late.t1 + MS, late.t1 + 2 * MS


@mutation("I6")
def skip_a_message_in_a_tail(history: Copy) -> None:
    tail = history.all("read", cons="tail:1", part=2)
    history.drop(tail[history.random.randrange(1, len(tail) - 1)])


@mutation("I6")
def turn_back_in_a_tail(history: Copy) -> None:
    tail = history.all("read", cons="tail:1", part=2)
    one, two = tail[7], tail[8]
    one.off, two.off = two.off, one.off
    one.val, two.val = two.val, one.val


@mutation("I14")
def keep_two_messages_of_one_key(history: Copy) -> None:
    one = history.some(history.all("publish", type="ok", part=1, topic=TOPIC, dup=False))
    other = history.some(e for e in history.all("publish", type="ok", part=1, topic=TOPIC) if e.val != one.val)
    for publish in history.publishes(other.val):
        publish.idem = one.idem


@mutation("I14")
def call_a_repeat_new(history: Copy) -> None:
    repeats = history.all("publish", type="ok", dup=True)
    first = {e.idem for e in history.all("publish", type="ok", dup=False)}
    history.some(e for e in repeats if e.idem in first).dup = False


@mutation("I14")
def accept_another_payload_for_a_key(history: Copy) -> None:
    refused = history.some(history.all("publish", type="fail"))
    first = history.some(history.all("publish", type="ok", idem=refused.idem))
    refused.type, refused.status, refused.off, refused.dup = "ok", 200, first.off, True


@mutation("I14")
def answer_a_repeat_with_another_place(history: Copy) -> None:
    repeat = history.some(e for e in history.all("publish", type="ok", dup=True) if (e.off or 0) > 3)
    repeat.off = (repeat.off or 0) - 2


@mutation("I14")
def keep_an_unanswered_publish_in_two_partitions(history: Copy) -> None:
    read = history.some(history.all("read", cons="audit:final", part=0, topic=TOPIC))
    for publish in history.publishes(read.val):
        publish.type, publish.part, publish.off = "info", None, None
    last = history.all("audit", cons="audit:final", topic=TOPIC, part=1)[0]
    last.off = (last.off or 0) + 1
    history.add(read, part=1, off=last.off)


@mutation("I17")
def trim_too_early(history: Copy) -> None:
    audit = history.all("audit", topic="aged")[0]
    assert audit.data is not None
    first = audit.data["first"]
    audit.data["first"] = first + 5
    history.drop(*(e for e in history.all("read", topic="aged") if (e.off or 0) < first + 5))


@mutation("I17")
def trim_too_late(history: Copy) -> None:
    audit = history.all("audit", topic="aged")[0]
    assert audit.data is not None
    first = audit.data["first"] = audit.data["first"] - 1
    publish = history.all("publish", topic="aged", off=first)[0]
    history.add(publish, f="read", cons="audit:final", t0=audit.t0, t1=audit.t1)


@mutation("I17")
def trim_without_a_limit(history: Copy) -> None:
    audit = history.all("audit", topic=TOPIC, cons="audit:final")[0]
    assert audit.data is not None
    audit.data["first"] = 3
    reads = history.all("read", topic=TOPIC, cons="audit:final", part=audit.part)
    history.drop(*(e for e in reads if (e.off or 0) < 3))


@mutation("I17")
def deliver_past_the_ttl(history: Copy) -> None:
    delivery = history.some(history.all("deliver", group="any", att=2))
    for publish in history.publishes(delivery.val):
        publish.data = {"ttlMs": 20}


@mutation("I20")
def change_a_body_on_its_way(history: Copy) -> None:
    history.some(history.all("deliver")).sha = "0123456789abcdef"


@mutation("I20")
def change_a_body_in_the_log(history: Copy) -> None:
    history.some(history.all("read", cons="audit:final")).sha = "0123456789abcdef"


@mutation("I20")
def change_a_key_on_its_way(history: Copy) -> None:
    history.some(e for e in history.all("deliver", group="any") if e.key).key = "another"
