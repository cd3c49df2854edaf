"""Announce: brings what happened into the logs of the hooks that want to know. One transaction for each bounded lot.

    publish ──▶ batches ─────────── hook_cursors ─┐
    ack ──▶ announcements ────────────────────────┼──▶ the hook's log ──▶ pushed like any other topic
    fail ─▶ announcements ────────────────────────┘

What is taken is gone, and in the log, with the same commit: a crash in between loses nothing and doubles nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from app.broker.wakeups import Wakeups
from app.domain.hook import Event, Happened, document
from app.domain.message import NewMessage
from app.domain.partition import topic_of
from app.storage import hooks
from app.storage.database import Database, Outdated, on_collision_again
from app.storage.hooks import Target
from app.storage.messages import Row, append

# Of one pass. An announcement has up to a thousand messages.
ANNOUNCEMENTS = 20
PARTITIONS = 16
MESSAGES = 500

Key = tuple[int, Event, int]


async def announce_once(db: Database, wakeups: Wakeups) -> bool:
    """True if there may be more."""
    targets = await hooks.targets(db)
    wakeups.hooked = frozenset(target.topic_id for target in targets)
    if not targets:
        return False

    async def attempt() -> tuple[set[int], bool]:
        async with db.transaction() as tx:
            places = await hooks.behind(tx, partitions=PARTITIONS, messages=MESSAGES)
            happened = [one for place in places for one in await hooks.take_published(tx, place)]
            taken = await hooks.take_announcements(tx, ANNOUNCEMENTS)
            rows = rows_of([*happened, *taken], targets)
            await append(tx, rows)
            return {row.partition_id for row in rows}, bool(places or taken)

    try:
        logs, more = await on_collision_again(attempt)
    except Outdated:  # hooks were changed meanwhile
        return True
    if logs:
        wakeups.published(logs)
    return more


def rows_of(happened: Iterable[Happened], targets: Iterable[Target]) -> Sequence[Row]:
    """What is appended to the logs, in ascending order of partitions. Events nobody wants to know of are left out."""
    by_key: dict[Key, Target] = {(one.topic_id, one.event, one.group_id): one for one in targets}
    rows: dict[int, list[Row]] = defaultdict(list)
    for one in happened:
        body = None
        for group_id in {0, one.group_id}:
            target = by_key.get((topic_of(one.partition_id), one.event, group_id))
            if target is None:
                continue
            body = body or document(one)
            log = rows[target.partition_id]
            message = [NewMessage(body)]
            if not log or log[-1].add_all(message, len(body)) is None:
                log.append(Row(target.partition_id, target.version, window_ms=0))
                log[-1].add_all(message, len(body))
    return [row for partition_id in sorted(rows) for row in rows[partition_id]]
