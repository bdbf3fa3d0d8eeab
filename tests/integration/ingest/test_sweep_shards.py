"""Which symbols a collector looks at, and whom it asks for them."""

from __future__ import annotations

import pytest

from cluster.clock import FakeClock
from cluster.ingest.sweep import Sweeper
from cluster.providers.budget import Window
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.storage.database import Database
from tests.integration.ingest.market import LIVE, MINUTES, Named, at, look, watch

pytestmark = pytest.mark.postgres

SHARDS = {0: {"SYN0004", "SYN0005", "SYN0006"}, 1: {"SYN0001", "SYN0002", "SYN0003"}}
"""By the CRC-32 of their names: 0x69a14c34, 0x1ea67ca2, 0x87af2d18 and 0x19cbb8bb, 0x80c2e901, 0xf7c5d997."""


async def test_each_collector_asks_for_the_symbols_of_its_shard_alone(database: Database) -> None:
    await watch(database, *SHARDS[0], *SHARDS[1])
    clock = FakeClock(at(0, 0.5))
    for shard, names in SHARDS.items():
        provider = Named("a", clock)
        gateway = Gateway(provider, clock, GatewayPolicy(timeout_s=60.0))
        done = await look(Sweeper(database, {"a": gateway}, clock, shard=shard, shards=2), clock)
        assert {symbol for symbol, _, _ in provider.asked} == names
        assert (done.shard, done.symbols) == (shard, 3)


async def test_a_provider_that_may_be_asked_less_than_once_a_look_is_not_asked_at_all(
    database: Database,
) -> None:
    clock = FakeClock(at(0, 0.5))
    await watch(database, "SYN0001", tier="T0")
    await watch(database, "SYN0002", tier="T1")
    provider = Named("a", clock)
    once_a_minute = GatewayPolicy(budget=(Window(1, MINUTES.cadence_s),), timeout_s=60.0)
    one = Sweeper(database, {"a": Gateway(provider, clock, once_a_minute)}, clock)
    live = await look(one, clock, LIVE)  # twice a minute
    assert (live.unserved, live.failed, provider.asked) == (1, 0, [])
    minutes = await look(one, clock, MINUTES)
    assert (minutes.unserved, minutes.failed) == (0, 0)
    assert [symbol for symbol, _, _ in provider.asked] == ["SYN0002"]
