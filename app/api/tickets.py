"""Tickets for streams, for browsers: they can send no key with an EventSource, and no key belongs into a URL."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from app.api.auth import Caller
from app.api.dependencies import TheCaller, TheParts
from app.api.documents import Answer, Form
from app.api.problems import problems
from app.api.route import Route, needs
from app.broker.tickets import issue_ticket
from app.domain.names import check_name
from app.storage.tickets import Ticket

router = APIRouter(prefix="/v1/stream-tickets", tags=["messages"], route_class=Route)


class TicketForm(Form):
    topic: str = Field(examples=["orders"])
    group: str | None = Field(None, examples=[None])
    """For the group's stream; for the topic's if left out."""


class TicketAnswer(Answer):
    ticket: str
    """Goes into the stream's URL as `ticket`, once."""
    expires_at: datetime


@router.post(
    "", operation_id="createStreamTicket", summary="Get a ticket for a stream", status_code=201,
    responses=problems(404),
)  # fmt: skip
@needs("consume")
async def create_ticket(form: TicketForm, parts: TheParts, caller: TheCaller) -> TicketAnswer:
    """Good for one stream, for a minute."""
    check_name("topic", form.topic)
    caller.require("consume", form.topic)
    if form.group is None:
        await parts.catalog.topic(caller.namespace.id, form.topic)
    else:
        await parts.catalog.group(caller.namespace.id, form.topic, check_name("group", form.group))
    text, expires_at = await issue_ticket(parts.db, _ticket(form, caller))
    return TicketAnswer(ticket=text, expires_at=expires_at)


def _ticket(form: TicketForm, caller: Caller) -> Ticket:
    return Ticket(caller.namespace.id, form.topic, form.group, caller.prefix)
