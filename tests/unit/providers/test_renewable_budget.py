"""Where the gateway of a provider has its budget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cluster.errors import RateLimited
from cluster.market.intervals import Interval
from cluster.providers.budget import Window
from cluster.providers.gateway import GatewayPolicy
from cluster.providers.renewable import RenewableGateway

NOWHERE = "redis://127.0.0.1:1"
START = datetime(2025, 10, 8, tzinfo=UTC)


async def hours(gateway: RenewableGateway) -> int:
    async with gateway.use() as one:
        return len(await one.fetch("SYN0001", Interval.H1, START, START + timedelta(days=1)))


async def test_a_provider_without_limits_does_not_need_the_redis_that_others_share_their_budget_in() -> None:
    assert await hours(RenewableGateway("synthetic", {}, GatewayPolicy(), NOWHERE)) == 24


async def test_a_budget_that_a_reload_brings_is_shared() -> None:
    gateway = RenewableGateway("synthetic", {}, GatewayPolicy(), NOWHERE)
    await gateway.renew({}, GatewayPolicy(budget=(Window(5, 60.0),), patience_s=0.0), NOWHERE)
    with pytest.raises(RateLimited, match="out of reach"):
        await hours(gateway)
