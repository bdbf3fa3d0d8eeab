"""An outage that real workers refill: PostgreSQL, Ray, the gateway of the synthetic provider, workers."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import ray

from benchmarks.million_bars import private_server
from cluster import settings
from cluster.backfill import actor
from cluster.backfill.actor import WorkerOptions
from cluster.clock import SystemClock
from cluster.market.intervals import Interval
from cluster.providers import gateway_actor, plans
from cluster.storage.backfill_enqueue import Wanted
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.database import Database

PROVIDER = "synthetic"
_POLL_S = 0.1
_TIMEOUT_S = 600.0
_KNOWN = """
INSERT INTO symbol_universe (symbol, exchange, asset_type, calendar, tier)
SELECT symbol, 'SYNTHETIC', 'crypto', '24/7', 'T0' FROM unnest($1::text[]) AS symbol
"""


@dataclass(frozen=True)
class System:
    """The database, and the workers on Ray beside it."""

    database: Database
    workers: list[Any]


@asynccontextmanager
async def system(options: Mapping[str, object], *, workers: int = 1) -> AsyncIterator[System]:
    """Everything that a refill needs, with the shipped settings."""
    async with private_server() as database:
        os.environ.setdefault("RAY_worker_niceness", "0")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        try:
            gateway = gateway_actor.start(PROVIDER, options, plans.policy(PROVIDER, options))
            await gateway.stats()
            how = WorkerOptions(
                database_url=database.dsn,
                providers=(PROVIDER,),
                limits=settings.load(instance=False, environ={}).backfill_limits,
                log_level="warning",
            )
            made = [actor.start(index, how) for index in range(workers)]
            await asyncio.gather(*(_at_work(each) for each in made))
            yield System(database, made)
            await actor.drain(made)
        finally:
            ray.shutdown()


async def _at_work(worker: Any) -> None:
    while await worker.stats.remote() is None:  # noqa: ASYNC110 - no event crosses the process boundary
        await asyncio.sleep(_POLL_S)


async def add_universe(database: Database, symbols: list[str]) -> None:
    """The instruments, traded around the clock."""
    await database.pool.execute(_KNOWN, symbols)


def yesterday() -> tuple[datetime, datetime]:
    """A whole day that is over."""
    end = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
    return end - timedelta(days=1), end


async def queue_all(database: Database, symbols: list[str], span: Span) -> None:
    """Have `span` of every symbol fetched, in one transaction."""
    wanted = [Wanted(symbol, Interval.M1, span, "T0", None) for symbol in symbols]
    await BackfillQueue(database).enqueue_many(wanted)


async def seconds_until_done(database: Database) -> float:
    """How long it takes from now until nothing waits or runs any more."""
    began_s = time.perf_counter()
    statement = "SELECT count(*) FROM backfill_jobs WHERE state IN ('ready', 'leased')"
    while left := await database.pool.fetchval(statement):
        if time.perf_counter() - began_s > _TIMEOUT_S:
            raise SystemExit(f"{left} jobs are left after {_TIMEOUT_S:g} s")
        await asyncio.sleep(_POLL_S)
    took_s = time.perf_counter() - began_s
    dead = await database.pool.fetchval("SELECT count(*) FROM backfill_jobs WHERE state = 'dead'")
    if dead:
        raise SystemExit(f"{dead} jobs were given up")
    print(f"done in {took_s:.1f} s", file=sys.stderr)
    return took_s
