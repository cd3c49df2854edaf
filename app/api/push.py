"""How a group is delivered to: pulled by consumers, or pushed to a webhook."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, Self

import msgspec
from pydantic import Field

from app.api.documents import Answer, Form, unmasked
from app.domain import group as domain
from app.domain.endpoint import State
from app.domain.errors import InvalidField, SecretUnreadable
from app.domain.secret import MASK, masked_headers
from app.storage.endpoints import Seen
from app.webhook.address import Policy, check_url
from app.webhook.request import check_headers

DAY_MS = 24 * 60 * 60 * 1000

PUSH_ONLY = ("url", "headers", "secret")

Format = Literal["raw", "cloudevents-binary", "cloudevents-structured"]


class DeliveryForm(Form):
    """Pulled by consumers, or pushed to a webhook."""

    mode: Literal["pull", "push"] = "pull"
    url: str | None = Field(None, examples=[None])
    """Where pushes go: http or https, not an internal address."""
    headers: dict[str, str] = Field({}, examples=[{}])
    """Sent with every push."""
    secret: str | None = Field(None, examples=[None])
    """Signs pushes (Standard Webhooks): ``whsec_`` and base64 of 24 to 64 bytes."""
    secret_overlap_ms: int = Field(DAY_MS, ge=0, le=30 * DAY_MS)
    """How long a secret that was replaced signs on beside the new one."""
    format: Format = "raw"
    previous_secret_until: str | None = Field(None, examples=[None])
    """Of no effect; allowed so that what was read can be sent back."""

    def config(self, present: domain.Delivery | None, policy: Policy) -> domain.Delivery:
        if self.mode == "pull":
            for name in PUSH_ONLY:
                if getattr(self, name):
                    raise InvalidField.of(f"delivery.{name}", 'is for {"mode": "push"} only')
            return domain.Delivery()
        if self.url is None:
            raise InvalidField.of("delivery.url", "is required to push")
        headers = {
            name: _present_header(name, present) if value == MASK else value for name, value in self.headers.items()
        }
        check_headers(headers, "delivery.headers")
        return domain.Delivery(
            mode="push",
            url=check_url(self.url, policy, "delivery.url").url,
            headers=headers,
            secret=unmasked(self.secret, present.secret if present else None, "delivery.secret"),
            secret_overlap_ms=self.secret_overlap_ms,
            format=self.format,
        )


class DeliveryAnswer(Answer):
    mode: Literal["pull", "push"]
    url: str | None = None
    headers: dict[str, str] | None = None
    """Those that let somebody in are masked."""
    secret: str | None = None
    """Masked."""
    secret_overlap_ms: int | None = None
    previous_secret_until: str | None = None
    """Until when the secret before this one signs too."""
    format: Format | None = None

    @classmethod
    def of(cls, delivery: domain.Delivery) -> Self:
        if delivery.mode == "pull":
            return cls(mode="pull")
        secret = None if delivery.secret is None else MASK
        headers = masked_headers(delivery.headers)
        masked = msgspec.structs.replace(delivery, secret=secret, previous_secret=None, headers=headers)
        shown = msgspec.to_builtins(masked)
        del shown["previousSecret"]
        return cls(**shown)


class EndpointAnswer(Answer):
    """How the receiver of a push group fares. While it is throttled or open nothing is sent, and nothing is lost."""

    state: State
    """healthy; failing; throttled: it asked for time; open: it is down, or a secret of the group cannot be read;
    half_open: down, one message tries it."""
    since: datetime | None
    """None where all has always been well."""
    reason: str | None
    retry_at: datetime | None
    """When the next message is sent at the earliest; None where one may be sent now."""

    @classmethod
    def of(cls, seen: Seen | None, delivery: domain.Delivery) -> Self | None:
        if seen is None:
            return None
        endpoint, now = seen
        try:
            delivery.require_readable(datetime.fromtimestamp(now / 1000, UTC))
        except SecretUnreadable as error:
            return cls(state="open", since=None, reason=str(error), retry_at=None)
        state = endpoint.state(now)
        reason = None if state == "healthy" else endpoint.reason
        return cls(
            state=state, since=_moment(endpoint.since or None), reason=reason, retry_at=_moment(endpoint.retry_at(now))
        )


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


def _present_header(name: str, present: domain.Delivery | None) -> str:
    if present is None or name not in present.headers:
        raise InvalidField.of(f"delivery.headers.{name}", "is the mask of a header that is not there")
    return present.headers[name]
