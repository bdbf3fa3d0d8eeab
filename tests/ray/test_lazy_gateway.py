"""Gateways that come and go, as those see them that outlive them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
import ray

from cluster.errors import ProviderDown
from cluster.market.intervals import Interval
from cluster.providers import gateway_actor
from cluster.providers.gateway import GatewayPolicy
from cluster.providers.lazy_gateway import LazyGateway

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 5, tzinfo=UTC)


async def rows(gateway: LazyGateway) -> int:
    return len(await gateway.fetch("SYN0001", Interval.H1, START, END))


def start(namespace: str) -> None:
    gateway_actor.start("synthetic", {}, GatewayPolicy(timeout_s=240.0), namespace=namespace)


def end(namespace: str) -> None:
    ray.kill(ray.get_actor(gateway_actor.actor_name("synthetic"), namespace=namespace), no_restart=True)


async def test_a_gateway_is_found_when_it_starts_later_and_when_another_takes_its_place() -> None:
    namespace = f"test-{uuid.uuid4().hex}"
    gateway = LazyGateway("synthetic", namespace)
    with pytest.raises(ProviderDown, match="not running"):
        await rows(gateway)
    start(namespace)
    assert await rows(gateway) == 24
    end(namespace)
    with pytest.raises(ProviderDown):
        await rows(gateway)
    start(namespace)
    assert await rows(gateway) == 24
    end(namespace)
