"""The duties on a real Ray: they start, come back after a kill, and go by new options."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import ray

from cluster.backfill.gap_scan import WatchRules
from cluster.clock import SystemClock
from cluster.duties import actor
from cluster.duties.actor import DutyOptions
from cluster.duties.loop import DutyStats
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.storage import universe
from cluster.storage.database import Database
from tests.integration.storage.bar_tables import bar, write

pytestmark = [pytest.mark.ray, pytest.mark.postgres, pytest.mark.usefixtures("ray_cluster")]

_WITHIN_S = 240.0


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With a symbol of which two of the last minutes are missing."""
    now = SystemClock().now().replace(second=0, microsecond=0)
    database = await Database.open(database_url, max_size=2)
    await universe.add(database, Instrument("BTC-USD", "BINANCE", "crypto", "24/7", tier="T0"))
    ages = [age for age in range(3, 60) if age not in (30, 31)]
    await write(database, *(bar("BTC-USD", now - timedelta(minutes=age)) for age in ages))
    yield database
    await database.close()


async def gaps_done(duties: Any, *, period_s: float) -> DutyStats:
    """The watch after its first run of this process, at the pace of `period_s`."""
    while True:
        told: list[DutyStats] = await duties.stats.remote()
        for each in told:
            if (each.name, each.period_s) == ("gaps", period_s) and each.succeeded_at:
                return each
        await asyncio.sleep(0.05)


async def missing(database: Database) -> int:
    found: int = await database.pool.fetchval(
        "SELECT coalesce(sum(missing), 0)::int FROM gaps WHERE end_ts < now() - interval '10 minutes'"
    )
    return found


async def test_duties_start_come_back_after_a_kill_and_go_by_new_options(
    database: Database, database_url: str
) -> None:
    namespace = f"test-{uuid.uuid4().hex}"
    watch = WatchRules({"T0": [Interval.M1]})
    options = DutyOptions(database_url=database_url, watch=watch, watch_s=3_600.0)
    duties: Any = actor.start(options, namespace=namespace)
    try:
        async with asyncio.timeout(_WITHIN_S):
            first = await gaps_done(duties, period_s=3_600.0)
            assert (first.runs, first.failures, await missing(database)) == (1, 0, 2)

            await database.pool.execute("TRUNCATE gaps, gap_watermarks")
            pid = await duties.__ray_call__.remote(lambda _: os.getpid())
            os.kill(pid, signal.SIGKILL)
            again = await gaps_done(duties, period_s=3_600.0)
            assert (again.runs, await missing(database)) == (1, 2)

            await database.pool.execute("TRUNCATE gaps, gap_watermarks")
            await duties.reload.remote(replace(options, watch_s=0.1))
            while await missing(database) != 2:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
            assert (await gaps_done(duties, period_s=0.1)).failures == 0
    finally:
        with suppress(ValueError):
            ray.kill(duties, no_restart=True)
