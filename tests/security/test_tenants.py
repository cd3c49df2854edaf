"""S2: two tenants do whatever they like, with names and ids of each other; none ever sees a byte of the other's."""

from __future__ import annotations

import os
from itertools import count
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from app import metrics
from tests.security.background import Background

TENANTS = ("A", "B")
TENANT = st.sampled_from(TENANTS)
# Both use the same names, so that only the namespace keeps them apart.
TOPIC = st.sampled_from(["orders", "invoices"])
GROUP = st.sampled_from(["billing", "audit"])
AT_ONCE = 10
STEPS = int(os.environ.get("LOGPOST_TEST_TENANT_STEPS", "40"))
RUNS = int(os.environ.get("LOGPOST_TEST_TENANT_RUNS", "8"))


def marker(tenant: str) -> str:
    return f"marker-of-{tenant}-7f3a91"


class Tenants(RuleBasedStateMachine):
    house: Background
    runs = count()

    @initialize()
    def begin(self) -> None:
        run = next(self.runs)
        self.clients = {
            name: self.house.do(self.house.keyed.client(project=f"{name}-{run}", name=marker(name))) for name in TENANTS
        }
        # Ids of both: everybody uses everybody's.
        self.messages: list[str] = ["msg_1_1_1"]
        self.acks: list[str] = ["ack_1_1_1_1_1_1"]
        self.cursors: list[str] = []
        for tenant in TENANTS:
            for topic in ("orders", "invoices"):
                self.declare(tenant, topic)
                self.publish(tenant, topic, "k", once=True)
            self.declare_group(tenant, "orders", "billing")

    def call(self, tenant: str, method: str, path: str, **how: Any) -> httpx.Response:
        answer = self.house.do(self.clients[tenant].request(method, f"/v1/topics{path}", **how))
        other = marker("B" if tenant == "A" else "A")
        seen = answer.text + str(answer.headers)
        assert other not in seen, (tenant, method, path, seen)
        assert answer.status_code < 500, (method, path, answer.text)
        return answer

    @rule(tenant=TENANT, topic=TOPIC)
    def declare(self, tenant: str, topic: str) -> None:
        self.call(tenant, "PUT", f"/{topic}", json={"tags": [marker(tenant)]})

    @rule(tenant=TENANT, topic=TOPIC, group=GROUP)
    def declare_group(self, tenant: str, topic: str, group: str) -> None:
        form = {"startFrom": "earliest", "ordering": "key", "retries": {"max": 0}}
        self.call(tenant, "PUT", f"/{topic}/groups/{group}", json=form)

    @rule(tenant=TENANT, topic=TOPIC, key=st.sampled_from(["k", "l"]), once=st.booleans())
    def publish(self, tenant: str, topic: str, key: str, once: bool) -> None:
        headers = {"partition-key": key, "message-header-of": marker(tenant)}
        headers |= {"idempotency-key": "the-same"} if once else {}
        answer = self.call(tenant, "POST", f"/{topic}/messages", json={"of": marker(tenant)}, headers=headers)
        if answer.is_success:
            self.messages.append(answer.json()["id"])

    @rule(tenant=TENANT, topic=TOPIC, group=GROUP)
    def pull(self, tenant: str, topic: str, group: str) -> None:
        answer = self.call(tenant, "POST", f"/{topic}/groups/{group}/pull", json={"max": 3})
        for message in answer.json().get("messages", []):
            assert message["message"] == {"of": marker(tenant)}
            self.acks.append(message["ackId"])

    @rule(
        tenant=TENANT, topic=TOPIC, group=GROUP, verb=st.sampled_from(["ack", "nack", "discard"]),
        at=st.integers(0, 1000),
    )  # fmt: skip
    def settle(self, tenant: str, topic: str, group: str, verb: str, at: int) -> None:
        form: dict[str, Any] = {"ackIds": [self.acks[at % len(self.acks)]]}
        if verb != "ack":
            form["reason"] = marker(tenant)
        self.call(tenant, "POST", f"/{topic}/groups/{group}/{verb}", json=form)

    @rule(tenant=TENANT, topic=TOPIC, group=GROUP, at=st.integers(0, 1000))
    def seek_to_a_message(self, tenant: str, topic: str, group: str, at: int) -> None:
        form = {"messageId": self.messages[at % len(self.messages)]}
        self.call(tenant, "POST", f"/{topic}/groups/{group}/seek", json=form)

    @rule(
        tenant=TENANT, topic=TOPIC, group=GROUP,
        form=st.sampled_from([
            "/{topic}/messages/{id}", "/{topic}/messages/{id}/deliveries", "/{topic}/groups/{group}/dead-letters/{id}"
        ]),
    )  # fmt: skip
    def read_a_message(self, tenant: str, topic: str, group: str, form: str) -> None:
        for message in self.messages[-AT_ONCE:]:
            self.call(tenant, "GET", form.format(topic=topic, group=group, id=message))

    @rule(tenant=TENANT, topic=TOPIC, group=GROUP, at=st.integers(0, 1000))
    def retry_a_dead_letter(self, tenant: str, topic: str, group: str, at: int) -> None:
        letter = self.messages[at % len(self.messages)]
        self.call(tenant, "POST", f"/{topic}/groups/{group}/dead-letters/{letter}/retry")

    @rule(
        tenant=TENANT, topic=TOPIC, group=GROUP, with_cursor=st.booleans(), at=st.integers(0, 1000),
        form=st.sampled_from([
            "", "/{topic}", "/{topic}/messages", "/{topic}/stats", "/{topic}/groups", "/{topic}/groups/{group}",
            "/{topic}/groups/{group}/stats", "/{topic}/groups/{group}/lag", "/{topic}/groups/{group}/deliveries",
            "/{topic}/groups/{group}/dead-letters",
        ]),
    )  # fmt: skip
    def look(self, tenant: str, topic: str, group: str, form: str, with_cursor: bool, at: int) -> None:
        query: dict[str, Any] = {"limit": 1} if form.rpartition("/")[2] in LISTS or not form else {}
        if with_cursor and query and self.cursors:
            query["cursor"] = self.cursors[at % len(self.cursors)]
        answer = self.call(tenant, "GET", form.format(topic=topic, group=group), params=query)
        if answer.is_success and (cursor := answer.json().get("nextCursor")):
            self.cursors.append(cursor)

    @rule(tenant=TENANT, topic=TOPIC, verb=st.sampled_from(["pause", "resume", "purge"]))
    def operate(self, tenant: str, topic: str, verb: str) -> None:
        body = {"reason": marker(tenant)} if verb == "pause" else {}
        self.call(tenant, "POST", f"/{topic}/{verb}", json=body)

    @rule(tenant=TENANT, topic=TOPIC)
    def delete(self, tenant: str, topic: str) -> None:
        self.call(tenant, "DELETE", f"/{topic}")

    def teardown(self) -> None:
        shown = metrics.render().decode()
        assert not any(marker(tenant) in shown for tenant in TENANTS)


LISTS = frozenset({"messages", "groups", "deliveries", "dead-letters"})


# The server in the other thread draws its jitter while Hypothesis draws.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
def test_s02_no_byte_of_one_tenant_reaches_the_other(dsn: str) -> None:
    Tenants.house = Background(dsn)
    try:
        run_state_machine_as_test(
            Tenants,
            settings=settings(
                max_examples=RUNS, stateful_step_count=STEPS, deadline=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck), derandomize=True, database=None,
            ),
        )  # fmt: skip
    finally:
        Tenants.house.close()
