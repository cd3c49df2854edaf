"""The plain way: a 2xx is the ack, everything else is not."""

from __future__ import annotations

from standardwebhooks import Webhook

from tests.push.world import GROUP, SECRET, TOPIC, World, saying, texts
from tests.misbehaviour import acting, answer, hang, redirect, reset


async def test_a_2xx_is_the_ack(world: World) -> None:
    await world.topic()
    await world.group()
    published = await world.publish("a", "b")
    await world.receiver.received(2)
    await world.settled()
    assert texts(world.receiver.requests) == ["a", "b"]
    first = world.receiver.requests[0]
    assert first.header("webhook-id") == published[0]["id"]
    assert (first.header("Logpost-Attempt"), first.header("Logpost-Max-Attempts")) == ("1", "4")
    stats = await world.stats()
    assert (stats["acked"], stats["dead"], stats["inFlight"]) == (2, 0, 0)
