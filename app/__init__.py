"""Logpost: durable publish/subscribe over plain HTTP, on Postgres.

    publisher ──POST──▶ lane ──▶ appender ──▶ batches          one row per partition and commit
                                                 │
                         wake-ups ◀── commit ────┤             hints, never truth
                             │                   ▼
    consumer ◀─ pull ── lines ──▶ claim ──▶ cursors, leases    one row each per claim, whatever it holds
       │                                         │
       └── ack, nack, discard, extend ──▶ settle ┴─▶ deferred  one row per exception
                                                     dead_letters

**Words.** A *topic* is a log with *partitions*; a *message* is addressed by topic, partition and *offset*. A *group*
reads a topic with one *cursor* per partition: the next offset it has not looked at. A *lease* is a time-limited, fenced
claim of one consumer on messages; to *settle* is to end a delivery by ack, nack or discard. A *deferred* message has
left the straight line: it is retrying, held behind its key, or delayed. A *dead letter* used up its attempts.

**Invariants.** They hold at every commit, on any number of replicas; everything else may be lost with a process.

1. For a group, every message of a partition is in exactly one place: ahead of the cursor, in a lease, deferred, dead,
   or settled.
2. Offsets of a partition are contiguous from 1 and assigned in commit order: the partition's row is locked from the
   look at the last offset to the commit. Nobody sees n+1 before n.
3. A 2xx on publish means that COMMIT returned without a warning. What a failed COMMIT did is unknown, and said so.
4. In partition and key ordering, while a message waits for its retry nothing later of its key is in flight or handed
   out; in key ordering a key is in flight at one consumer at a time.
5. Settling needs the lease a delivery was handed out under, and the cursor's epoch. Whatever takes a message away from
   its consumer (deadline, seek, purge, a failed message before it) makes the ackId stale in the same transaction.
6. Deadlines and times are the database's clock, read once in the function that uses them.

**Where to look.** ``main`` puts the parts together. ``api`` speaks HTTP, ``broker`` holds the verbs, ``storage`` the
SQL, ``domain`` what needs neither; ``loops`` is what happens without being asked, ``webhook`` calls out. The verbs that
matter are one plpgsql function each, in ``migrations/functions``: append, claim, ack, nack, expire, seek.
"""
