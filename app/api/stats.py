"""Lag and stats of groups and topics. Counted from cursors, leases and exceptions: asking often is cheap."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from fastapi import APIRouter

from app.api.dependencies import GroupName, TheCaller, TheParts, TopicName
from app.api.documents import Answer, Pause
from app.api.problems import problems
from app.api.push import EndpointAnswer
from app.api.route import Route
from app.broker import observe
from app.broker.observe import GroupStats, TopicStats
from app.broker.retain import trim_for, trim_topic
from app.storage.cursors import Standing
from app.storage.groups import read_group
from app.storage.partitions import Extent
from app.storage.topics import read_topic

router = APIRouter(prefix="/v1/topics/{topic}", route_class=Route)


class PartitionLag(Answer):
    partition: int
    lag: int
    committed_offset: int
    """Everything at or below it is settled."""
    first_offset: int
    """The first that is retained."""
    last_offset: int
    """0 in a partition that never had a message."""

    @classmethod
    def of(cls, standing: Standing) -> Self:
        return cls(
            partition=standing.number, lag=standing.lag, committed_offset=standing.committed_offset,
            first_offset=standing.first_offset, last_offset=standing.last_offset,
        )  # fmt: skip


class Lag(Answer):
    """Messages the group has still to settle."""

    lag: int
    partitions: list[PartitionLag]


class PartitionStats(PartitionLag):
    ahead: int
    in_flight: int
    retrying: int
    held: int
    delayed: int
    dead: int

    @classmethod
    def of(cls, standing: Standing) -> Self:
        return cls(
            **PartitionLag.of(standing).model_dump(by_alias=False), ahead=standing.ahead, in_flight=standing.leased,
            retrying=standing.retrying, held=standing.held, delayed=standing.delayed, dead=standing.dead,
        )  # fmt: skip


class GroupStatsAnswer(Answer):
    """Where every message of the group is: ahead of the cursor, in flight, deferred, dead, or settled."""

    group: str
    lag: int
    """ahead + inFlight + retrying + held + delayed"""
    ahead: int
    in_flight: int
    retrying: int
    """Waiting for another attempt."""
    held: int
    """Waiting behind their key."""
    delayed: int
    """Not due yet."""
    dead: int
    acked: int
    discarded: int
    filtered: int
    filter_errors: int
    """Of those filtered, the ones the filter could not be evaluated for."""
    expired: int
    lost: int
    """Removed by retention before they were delivered."""
    consumers: int
    """Live ones, on every replica."""
    paused: bool
    pause: Pause | None
    endpoint: EndpointAnswer | None
    """Of a group that is pushed."""
    oldest_unsettled_age_ms: int | None
    partitions: list[PartitionStats]

    @classmethod
    def of(cls, stats: GroupStats) -> Self:
        group = stats.group
        counted = ("lag", "ahead", "retrying", "held", "delayed", "dead", "acked", "discarded", "filtered",
                   "filter_errors", "expired", "lost")  # fmt: skip
        return cls(
            group=group.name, in_flight=stats.total("leased"), consumers=stats.consumers, paused=group.paused,
            pause=Pause.of(*group.pause), endpoint=EndpointAnswer.of(stats.endpoint, group.config.delivery),
            oldest_unsettled_age_ms=stats.oldest_unsettled_age_ms,
            partitions=[PartitionStats.of(standing) for standing in stats.standings],
            **{name: stats.total(name) for name in counted},
        )  # fmt: skip


class PartitionExtent(Answer):
    partition: int
    first_offset: int
    last_offset: int

    @classmethod
    def of(cls, extent: Extent) -> Self:
        return cls(partition=extent.number, first_offset=extent.first_offset, last_offset=extent.last_offset)


class TopicStatsAnswer(Answer):
    topic: str
    messages: int
    """Exact, whatever the number."""
    oldest_at: datetime | None
    newest_at: datetime | None
    partitions: list[PartitionExtent]
    groups: list[GroupStatsAnswer]

    @classmethod
    def of(cls, stats: TopicStats) -> Self:
        return cls(
            topic=stats.topic.name, messages=stats.messages, oldest_at=stats.oldest_at, newest_at=stats.newest_at,
            partitions=[PartitionExtent.of(extent) for extent in stats.extents],
            groups=[GroupStatsAnswer.of(group) for group in stats.groups],
        )  # fmt: skip


@router.get(
    "/stats", operation_id="getTopicStats", summary="What a topic holds", tags=["topics"], responses=problems(404, 503)
)
async def topic_stats(topic: TopicName, parts: TheParts, caller: TheCaller) -> TopicStatsAnswer:
    """And where each of its groups is."""
    known = await read_topic(parts.db, caller.namespace.id, topic)
    await trim_topic(parts.db, known)
    return TopicStatsAnswer.of(await observe.topic_stats(parts.db, known, parts.puller.owners()))


@router.get(
    "/groups/{group}/lag", operation_id="getLag", summary="What a group has still to settle", tags=["groups"],
    responses=problems(404, 503),
)  # fmt: skip
async def lag(topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller) -> Lag:
    """0 once everything is settled, whatever was trimmed or purged."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    await trim_for(parts.db, known)
    stats = await observe.group_stats(parts.db, known)
    return Lag(lag=stats.total("lag"), partitions=[PartitionLag.of(standing) for standing in stats.standings])


@router.get(
    "/groups/{group}/stats", operation_id="getGroupStats", summary="Where a group's messages are", tags=["groups"],
    responses=problems(404, 503),
)  # fmt: skip
async def group_stats(topic: TopicName, group: GroupName, parts: TheParts, caller: TheCaller) -> GroupStatsAnswer:
    """Every message is in exactly one place: ahead of the cursor, in flight, deferred, dead, or settled."""
    known = await read_group(parts.db, caller.namespace.id, topic, group)
    await trim_for(parts.db, known)
    return GroupStatsAnswer.of(await observe.group_stats(parts.db, known, parts.puller.owners()))
