"""What routes are given, each named once: ``db: Db`` in a route's signature is all it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request
from pydantic import AfterValidator

from app.api.auth import Caller, Gate
from app.api.events import Streams
from app.api.polls import Polls
from app.broker.appender import Appender
from app.broker.catalog import Catalog
from app.broker.feed import Feeds
from app.broker.pull import Puller
from app.broker.seats import Seats
from app.broker.settle import Settler
from app.broker.unsettled import Unsettled
from app.broker.wakeups import Wakeups
from app.broker.window import Windows
from app.domain.group import GroupConfig
from app.domain.limits import Limits
from app.domain.names import NAME_PATTERN, check_name
from app.domain.topic import TopicConfig
from app.storage.database import Database
from app.webhook.address import Policy
from app.webhook.send import Sender


@dataclass(frozen=True, slots=True)
class Defaults:
    """What topics and groups get that do not say."""

    topic: TopicConfig
    partitions: int
    group: GroupConfig


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything of a process that answers requests; made in main.py, kept in ``app.state.parts``."""

    db: Database
    catalog: Catalog
    wakeups: Wakeups
    gate: Gate
    defaults: Defaults
    policy: Policy
    limits: Limits
    appender: Appender
    unsettled: Unsettled
    puller: Puller
    settler: Settler
    feeds: Feeds
    windows: Windows
    streams: Streams
    polls: Polls
    seats: Seats
    sender: Sender


def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _db(request: Request) -> Database:
    return parts_of(request).db


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


TheParts = Annotated[Parts, Depends(parts_of)]
Db = Annotated[Database, Depends(_db)]
TheCaller = Annotated[Caller, Depends(_caller)]

TopicName = Annotated[
    str,
    Path(description="Name of the topic.", examples=["orders"], json_schema_extra={"pattern": f"^{NAME_PATTERN}$"}),
    AfterValidator(lambda name: check_name("topic", name)),
]
GroupName = Annotated[
    str,
    Path(description="Name of the group.", examples=["billing"], json_schema_extra={"pattern": f"^{NAME_PATTERN}$"}),
    AfterValidator(lambda name: check_name("group", name)),
]
