"""Every call of the API out of its OpenAPI document, with what makes it a request: a path, a body that is good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.api.application import application
from app.api.openapi import document_of

METHODS = ("get", "put", "post", "delete")
OPEN = frozenset({"livez", "readyz"})
ROOT_ONLY = frozenset({"createKey", "listKeys", "getKey", "revokeKey"})

# Bodies that are good, by operation; without one the call has none.
BODIES: dict[str, Any] = {
    "declareTopic": {},
    "declareGroup": {"startFrom": "earliest"},
    "publish": {"n": 1},
    "publishBatch": {"messages": [{"message": 1}]},
    "pull": {"max": 1},
    "ack": {"ackIds": ["ack_1_1_1_1_1_1"]},
    "nack": {"ackIds": ["ack_1_1_1_1_1_1"]},
    "discard": {"ackIds": ["ack_1_1_1_1_1_1"]},
    "extend": {"ackIds": ["ack_1_1_1_1_1_1"], "ackTimeoutMs": 1000},
    "settle": {"ack": ["ack_1_1_1_1_1_1"]},
    "seek": {"position": "earliest"},
    "replay": {"from": 1},
    "createStreamTicket": {"topic": "orders"},
    "createKey": {"name": "more", "scopes": ["publish"]},
}
CONSUME = frozenset({
    "browse", "getMessage", "streamTopic", "streamGroup", "pull", "ack", "nack", "discard", "extend", "settle",
    "listDeliveries", "getMessageDeliveries", "listDeadLetters", "getDeadLetter", "createStreamTicket",
})  # fmt: skip
PUBLISH = frozenset({"publish", "publishBatch"})


@dataclass(frozen=True)
class Call:
    operation: str
    method: str
    template: str

    def path(self, topic: str = "orders", group: str = "billing", **names: str) -> str:
        path = self.template.replace("{topic}", topic).replace("{group}", group)
        for name, value in ({"messageId": "msg_1_1_1", "keyId": "key_000000000000"} | names).items():
            path = path.replace(f"{{{name}}}", value)
        assert "{" not in path, path
        return path

    @property
    def names_a_topic(self) -> bool:
        return "{topic}" in self.template

    @property
    def is_stream(self) -> bool:
        return self.template.endswith("/stream")

    @property
    def takes_a_body(self) -> bool:
        return self.operation in BODIES or self.method in ("post", "put")

    @property
    def body(self) -> Any:
        return BODIES.get(self.operation, {} if self.takes_a_body else None)

    def __str__(self) -> str:
        return self.operation


def every_call() -> list[Call]:
    document = document_of(application())
    return [
        Call(item[method]["operationId"], method, path)
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]


CALLS = every_call()
GUARDED = [call for call in CALLS if call.operation not in OPEN]
