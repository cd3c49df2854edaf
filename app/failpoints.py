"""Failpoints: the moments around a commit at which a process can be made to die, for whoever tests what that loses.

``hit`` does nothing in a server: no setting, no variable and no request switches it on. A test build puts a module of
its own on the path, which calls ``arm`` before anything else runs (bench/faults/testbuild/).
"""

from __future__ import annotations

from collections.abc import Callable

_act: Callable[[str], None] | None = None


def hit(name: str) -> None:
    """Here a process may die, or stand still."""
    if _act is not None:
        _act(name)


def arm(act: Callable[[str], None] | None) -> None:
    """``act`` is called with the name of every failpoint that is come by; None disarms."""
    global _act  # noqa: PLW0603 - one of them for a process, looked up at every commit
    _act = act


# In the order a message comes by them.
APPENDING = "append.before"  # keys were looked up, nothing is sent
APPENDED = "append.committed"  # nobody was told
CLAIMED = "claim.committed"  # nobody was given anything
PUSHED = "push.answered"  # the receiver's 2xx is there, and not written down
ACKING = "ack.before"
ACKED = "ack.committed"
NACKING = "nack.before"
NACKED = "nack.committed"  # and perhaps dead-lettered
REDRIVEN = "redrive.committed"
SEEKING = "seek.between"  # one partition has moved, the next one not, nothing is committed
SOUGHT = "seek.committed"
TRIMMING = "trim.between"  # one partition begins later, the next one not yet
SWEPT = "sweep.between"  # some of what nobody can read is deleted
PURGING = "purge.between"  # one partition is empty, the next one not, nothing is committed
PURGED = "purge.committed"  # all are, and the disk is not free
ALL = (
    APPENDING, APPENDED, CLAIMED, PUSHED, ACKING, ACKED, NACKING, NACKED, REDRIVEN, SEEKING, SOUGHT, TRIMMING, SWEPT,
    PURGING, PURGED,
)  # fmt: skip
