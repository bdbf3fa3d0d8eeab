"""A network between the workers and PostgreSQL that resets, swallows and delays: the pools recover."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cluster.market.intervals import Interval
from tests.chaos import fleet as fleets
from tests.chaos.fleet import Fleet, fleet, require_kept, synthetic, until, until_acknowledged, until_done
from tests.chaos.history import operations
from tests.chaos.proxy import Proxy, proxied
from tests.chaos.worker_process import Orders

pytestmark = [pytest.mark.chaos, pytest.mark.postgres, pytest.mark.slow]

M1 = Interval.M1
START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 4, 6, tzinfo=UTC)
SYMBOLS = ("SYN0001", "SYN0002")
SEED = 13
PROVIDERS = {"synthetic": {"seed": SEED, "latency_s": 0.05}}


@asynccontextmanager
async def work(database_url: str, folder: Path) -> AsyncIterator[tuple[Fleet, Proxy]]:
    """Two workers behind a proxy; at the end all is done, and as it should be."""
    history = fleets.log_folder(folder)
    jobs = await fleets.enqueue(database_url, SYMBOLS, M1, START, END, bars=10)
    target = urlsplit(database_url)
    assert target.port is not None
    async with proxied("127.0.0.1", target.port) as proxy:
        dsn = database_url.replace(f":{target.port}/", f":{proxy.port}/")
        orders = Orders("", dsn, history, PROVIDERS, lease_s=1.0, concurrency=2, commit_pause_s=0.05)
        with fleet(replace(orders, call_timeout_s=2.0)) as workers:
            workers.start("one", "two")
            await until_acknowledged(workers)
            yield workers, proxy
            await until_done(database_url, jobs)
            events = workers.history()
    await require_kept(database_url, events, await synthetic(SEED, SYMBOLS, M1, START, END))


@pytest.mark.parametrize("gets_through", [False, True])
async def test_a_reset_in_the_middle_of_a_commit_neither_loses_nor_doubles_its_bars(
    database_url: str, tmp_path: Path, *, gets_through: bool
) -> None:
    async with work(database_url, tmp_path) as (workers, proxy):
        proxy.resets = [(b"COMMIT;", gets_through)] * 6
        await until(lambda: asyncio.sleep(0, not proxy.resets))
        unsure = [one for one in operations(workers.history()) if one.kind == "info"]
        assert unsure


async def test_connections_that_are_half_open_are_given_up_within_their_deadlines(
    database_url: str, tmp_path: Path
) -> None:
    async with work(database_url, tmp_path) as (workers, proxy):
        proxy.swallows = True
        await asyncio.sleep(2 * workers.orders.lease_s)
        proxy.swallows = False
        for name in workers.names():
            await until_acknowledged(workers, by=name)


async def test_a_slow_network_with_resets_only_takes_longer(database_url: str, tmp_path: Path) -> None:
    async with work(database_url, tmp_path) as (workers, proxy):
        proxy.delay_s = 0.01
        for _ in range(2):
            proxy.cut()
            await until_acknowledged(workers)
        proxy.delay_s = 0.0
