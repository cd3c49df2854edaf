"""How many of a thing a namespace may have; the server's settings give the numbers.

A limit is asked where there would be more of a thing than before: what is there already can be declared again, and
changed, also when a limit has since been lowered below it.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.errors import Fault, LimitReached


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All counts are per namespace but ``partitions_per_topic`` and ``groups_per_topic``."""

    keys: int = 1000
    topics: int = 10_000
    partitions: int = 100_000
    partitions_per_topic: int = 65_536
    groups_per_topic: int = 1000

    def check_topics(self, topics: int) -> None:
        """``topics``: how many the namespace would have. Raises LimitReached, as all of these do."""
        if topics > self.topics:
            raise LimitReached.of("topics", self.topics, "LOGPOST_MAX_TOPICS")

    def check_partitions(self, of_topic: int, of_namespace: int) -> None:
        """How many the topic and its namespace would have."""
        if of_topic > self.partitions_per_topic:
            most, owner, setting = self.partitions_per_topic, "topic", "LOGPOST_MAX_TOPIC_PARTITIONS"
        elif of_namespace > self.partitions:
            most, owner, setting = self.partitions, "namespace", "LOGPOST_MAX_PARTITIONS"
        else:
            return
        reason = f"at most {most} partitions of a {owner} are allowed ({setting})"
        raise LimitReached(f"distribution.partitions: {reason}.", [Fault(reason, "distribution.partitions")])

    def check_groups(self, groups: int) -> None:
        """How many the topic would have."""
        if groups > self.groups_per_topic:
            raise LimitReached.of("groups of this topic", self.groups_per_topic, "LOGPOST_MAX_TOPIC_GROUPS")


DEFAULT_LIMITS = Limits()
