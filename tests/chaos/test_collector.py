"""A collector that is killed again and again: nothing is lost, and nothing is there twice."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import ray

from cluster.ingest import actor
from cluster.ingest.actor import CollectorOptions
from cluster.ingest.cadence import Cadence
from cluster.market.bars import BAR_SCHEMA
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers import gateway_actor
from cluster.providers.gateway import GatewayPolicy
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import bars, sweeps, universe
from cluster.storage.database import Database

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("ray_cluster"),
]

M1 = Interval.M1
SEED = 7
SYMBOLS = [f"SYN{number:04d}" for number in range(1, 41)]
WITHIN_S = 400.0


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url)
    for symbol in SYMBOLS:
        await universe.add(database, Instrument(symbol, "SYNTHETIC", "crypto", "24/7", tier="T0"))
    yield database
    await database.close()


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of its own, with the actors of the test; they are gone afterwards."""
    name = f"test-{uuid.uuid4().hex}"
    yield name
    for one in (actor.actor_name(0), gateway_actor.actor_name("synthetic")):
        with suppress(ValueError):
            ray.kill(ray.get_actor(one, namespace=name), no_restart=True)


def options_on(database_url: str) -> CollectorOptions:
    cadence = Cadence("T0", M1, 1.0)
    return CollectorOptions(database_url, ("synthetic",), (cadence,), batch=4)


def process_id(collector: Any) -> int:
    pid: int = ray.get(collector.__ray_call__.remote(lambda _: os.getpid()), timeout=WITHIN_S)
    return pid


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that other processes bring about."""
    async with asyncio.timeout(WITHIN_S):
        while not await condition():  # noqa: ASYNC110 - no event crosses the process boundary
            await asyncio.sleep(0.02)


async def rows(database: Database) -> int:
    found: int = await database.pool.fetchval("SELECT count(*) FROM candles_intraday")
    return found


async def test_a_collector_killed_in_the_middle_of_its_batches_goes_on_where_it_was(
    database: Database, database_url: str, namespace: str
) -> None:
    # Each of the ten batches takes a while, so that the kills come in between them.
    gateway_options = {"seed": SEED, "latency_s": 0.2, "running_bar": True}
    gateway_actor.start("synthetic", gateway_options, GatewayPolicy(timeout_s=WITHIN_S), namespace=namespace)
    collector: Any = actor.start(0, options_on(database_url), namespace=namespace)
    for share in (0.2, 0.6):

        async def has_begun(least: float = share * 10 * len(SYMBOLS)) -> bool:
            return await rows(database) >= least

        await until(has_begun)
        os.kill(process_id(collector), signal.SIGKILL)
    killed_at = await database.pool.fetchval("SELECT now()")

    async def has_looked_twice() -> bool:
        return any(each.started_at > killed_at + timedelta(seconds=2) for each in await sweeps.last(database))

    await until(has_looked_twice)
    await asyncio.wait_for(collector.drain.remote(60.0), WITHIN_S)
    await _holds_what_the_provider_says(database)


async def _holds_what_the_provider_says(database: Database) -> None:
    provider = SyntheticProvider(seed=SEED)
    for symbol in SYMBOLS:
        table = await bars.read(database, symbol, M1)
        final = table.filter(table["is_final"]).select(BAR_SCHEMA.names)
        start, end = final["ts"][0].as_py(), final["ts"][-1].as_py() + timedelta(minutes=1)
        assert final.num_rows >= 9
        assert final.equals((await provider.bars(symbol, M1, start, end)).cast(BAR_SCHEMA))
        assert table.num_rows - final.num_rows <= 1  # the one that ran when it ended


async def test_a_collector_goes_by_other_options_and_ends_when_it_is_drained(
    database: Database, database_url: str, namespace: str
) -> None:
    gateway_actor.start("synthetic", {"seed": SEED}, GatewayPolicy(timeout_s=WITHIN_S), namespace=namespace)
    options = options_on(database_url)
    collector: Any = actor.start(0, options, namespace=namespace)

    async def looked_at(cadence_s: float) -> bool:
        return [each.cadence_s for each in await sweeps.last(database)] == [cadence_s]

    await until(lambda: looked_at(1.0))
    pid = process_id(collector)
    await asyncio.wait_for(collector.reload.remote(options), WITHIN_S)
    slower = replace(options, cadences=(Cadence("T0", M1, 2.0),))
    await asyncio.wait_for(collector.reload.remote(slower), WITHIN_S)
    await until(lambda: looked_at(2.0))
    assert process_id(collector) == pid
    await asyncio.wait_for(collector.drain.remote(60.0), WITHIN_S)
    last = await sweeps.last(database)
    await asyncio.sleep(3.0)
    assert await sweeps.last(database) == last
