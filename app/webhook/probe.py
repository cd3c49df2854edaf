"""The test event of a push group: signed and shaped like any delivery, of a message that there is not."""

from __future__ import annotations

import secrets
from datetime import datetime

import msgspec

from app.domain.group import Group
from app.domain.message import Message, iso
from app.domain.partition import partition_id
from app.webhook.request import NO_META, Letterhead, Request, shaped

TYPE = "logpost.test"
# Somebody waits for the outcome, whatever the group's ackTimeoutMs is.
MAX_TIMEOUT_MS = 30_000


def probe_request(group: Group, now: datetime) -> Request:
    """What is sent has no place in the log, no attempt and no ackId: there is nothing to settle."""
    webhook_id = f"test_{secrets.token_hex(12)}"
    payload = msgspec.json.encode({"type": TYPE, "topic": group.topic, "group": group.name, "at": iso(now)})
    message = Message(partition_id(group.topic_id, 0), 0, now, None, None, payload)
    body, headers = shaped(group.config.delivery.format, group, message, webhook_id, NO_META)
    timeout_ms = min(group.config.ack_timeout_ms, MAX_TIMEOUT_MS)
    return Letterhead(group).request(
        webhook_id, body, (*headers, ("Logpost-Test", "true")), now=now, timeout_ms=timeout_ms
    )  # fmt: skip
