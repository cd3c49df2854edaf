"""Broken builds: a suite that does not catch these proves nothing of the ones that work.

Each spoils one thing in the run's own database: a function as it was installed, by one change to its text, or a setting
of Postgres. Nothing in the server knows of it. An answer that is given before COMMIT is not among them: it would take
another server. What that loses, ``no durable commit`` loses as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.storage.migrate import MIGRATIONS
from bench.faults.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Change:
    """``old`` stands in functions/NAME.sql exactly once."""

    function: str
    old: str
    new: str

    def statement(self) -> str:
        text = (MIGRATIONS / "functions" / f"{self.function}.sql").read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.function}.sql does not have it once: {self.old}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Broken:
    """``caught_by``: the invariants that may name it. ``faults``: what brings it to light."""

    changes: Sequence[Change | str]
    caught_by: frozenset[str]
    faults: Sequence[str] = ("kill worker", "terminate connections")

    async def spoil(self, cluster: Cluster) -> None:
        for change in self.changes:
            await cluster.execute(change if isinstance(change, str) else change.statement())


BROKEN = {
    "offsets from a sequence": Broken(
        [Change("append", "base := greatest(next_offset, retained_from);",
                "base := greatest(next_offset, retained_from) + (random() < 0.02)::int;")],
        frozenset({"I4"}),
    ),
    "no idempotency row": Broken(
        [Change("append", "if once_keys is not null then", "if false then")],
        frozenset({"I14"}),
    ),
    "no fencing on settle": Broken(
        [Change("ack", "l.id = a.id and l.deadline > t and l.pending <@ a.offsets\n        returning l.id,",
                "l.pending <@ a.offsets\n        returning a.id,")],
        frozenset({"I8", "I9", "I12"}),
    ),
    "cursor past the highest ack": Broken(
        [Change("expire", "if n > 0 then", "if false then")],
        frozenset({"I10", "I16"}),
    ),
    "attempts not counted": Broken(
        [Change("fail", "attempt = d.attempt + 1", "attempt = d.attempt")],
        frozenset({"I13"}),
    ),
    "order lost with a nack": Broken(
        [Change("fail", "if retried is not null and", "if false and"),
         Change("claim", "when s.key = any (blocked) then 'held'", "when false then 'held'")],
        frozenset({"I7"}),
    ),
    "no durable commit": Broken(
        [Change("append", "\nbegin\n", "\nbegin\n    perform set_config('synchronous_commit', 'off', true);\n"),
         # A durable commit of anything else would take those before it along.
         "alter database logpost set synchronous_commit = off", "alter system set wal_writer_delay = '10s'",
         "select pg_reload_conf()",
         "select pg_terminate_backend(pid) from pg_stat_activity where usename = user and pid <> pg_backend_pid()"],
        frozenset({"I1", "I3", "I4"}),
        ("kill postgres",),
    ),
}  # fmt: skip
