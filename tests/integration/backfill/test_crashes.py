"""Workers that break off or stand still at any moment: every job ends once, and has its effect once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Thread

import numpy as np
import pyarrow as pa
import pytest

from cluster.backfill.pool import Pool
from cluster.backfill.worker import Result, Worker
from cluster.clock import FakeClock, SystemClock
from cluster.errors import LeaseLost
from cluster.market import bars
from cluster.market.instants import Instants, to_instant
from cluster.market.intervals import Interval
from cluster.providers.protocol import BarSource
from cluster.storage.backfill_enqueue import Wanted
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Database
from tests.integration.backfill.queue_calls import finish

pytestmark = pytest.mark.postgres

M1 = Interval.M1
T = datetime(2025, 10, 8, 14, tzinfo=UTC)
HOUR = Span(T, T + timedelta(hours=1))
JOBS, WORKERS, CRASHES, LEASE_S = 300, 3, 25, 0.5
_LEFT = "SELECT count(*) FROM backfill_jobs WHERE state IN ('ready', 'leased')"
_ENDS = "SELECT id, state FROM backfill_jobs"
_ENDED_TWICE = """
SELECT job_id FROM backfill_attempts WHERE outcome IN ('done', 'dead') GROUP BY job_id HAVING count(*) > 1
"""


class Handler:
    """Notes its job in the transaction that completes it; every tenth job can never work."""

    def __init__(self, queue: BackfillQueue, random: Random) -> None:
        self._queue, self._random = queue, random

    async def __call__(self, lease: Lease) -> Result:
        try:
            await self._pause()
            if lease.id % 10 == 0:
                await self._queue.fail(lease, "InvalidSymbol: unknown", retry_in_s=None)
                return "dead"
            async with self._queue.fenced(lease) as connection:
                await connection.execute("INSERT INTO effect VALUES ($1)", lease.id)
                await self._pause()
                await finish(self._queue, lease, 0, connection)
                await self._pause()
        except LeaseLost:
            return "lease_lost"
        return "done"

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.random() * 0.02)


async def crash(pool: Pool, life: asyncio.Task[None]) -> None:
    """Break off everything that a worker does, wherever it is; nothing is given back."""
    tasks = [life, *(running.task for running in pool._running.values())]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_workers_that_break_off_anywhere_lose_no_job_and_do_none_twice(database: Database) -> None:
    random = Random(11)
    queue = BackfillQueue(database, lease_s=LEASE_S, max_attempts=1_000, limits={"T2": 20})
    await queue.enqueue_many([Wanted(f"S{number}", M1, HOUR, "T2", None) for number in range(JOBS)])
    handler = Handler(queue, random)

    def started(number: int) -> tuple[Pool, asyncio.Task[None]]:
        pool = Pool(f"w{number}", queue, handler, SystemClock(), batch=4, concurrency=8, poll_s=0.05)
        return pool, asyncio.create_task(pool.run())

    workers = [started(number) for number in range(WORKERS)]
    for number in range(CRASHES):
        await asyncio.sleep(random.random() * 0.05)
        await crash(*workers.pop(random.randrange(WORKERS)))
        workers.append(started(WORKERS + number))
    async with asyncio.timeout(120):
        while await database.pool.fetchval(_LEFT):  # noqa: ASYNC110 - told by the database only
            await asyncio.sleep(0.05)
    for pool, life in workers:
        await pool.drain(5)
        await life

    states = {row["id"]: row["state"] for row in await database.pool.fetch(_ENDS)}
    assert len(states) == JOBS
    assert states == {job: "dead" if job % 10 == 0 else "done" for job in states}
    effects = sorted(row["n"] for row in await database.pool.fetch("SELECT n FROM effect"))
    assert effects == sorted(job for job in states if job % 10 != 0)
    assert await database.pool.fetch(_ENDED_TWICE) == []


def bars_of(close: float) -> pa.Table:
    ts = to_instant(T) + np.arange(60).astype("timedelta64[m]")
    flat = np.full(60, close)
    return bars.from_columns("A", M1, ts, flat, flat, flat, flat, flat, source="test")


class Prompt:
    """Answers at once."""

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        return bars_of(12.0)


class Busy:
    """Computes without ever letting the event loop go on, until another worker has done the job."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        rival = Thread(target=lambda: asyncio.run(take_over(self._dsn)))
        rival.start()
        rival.join(60)
        return bars_of(11.0)


def worker(queue: BackfillQueue, source: BarSource) -> Worker:
    return Worker(queue, {"test": source}, unknown, FakeClock(T + timedelta(days=1)))


async def unknown(symbol: str, interval: Interval, start: datetime, end: datetime) -> Instants | None:
    return None


async def take_over(dsn: str) -> None:
    """Do the job as soon as its lease has run out."""
    database = await Database.open(dsn)
    queue = BackfillQueue(database, lease_s=30)
    while not (leases := await queue.claim("rival", 1)):  # noqa: ASYNC110 - told by the database only
        await asyncio.sleep(0.02)
    await worker(queue, Prompt()).run(leases[0])
    await database.close()


async def test_a_worker_that_computes_past_its_lease_writes_nothing(
    database: Database, backfill_dsn: str
) -> None:
    """Heartbeats need the event loop: who keeps it busy loses the job to another, and nothing is mixed."""
    queue = BackfillQueue(database, lease_s=LEASE_S)
    await queue.enqueue_many([Wanted("A", M1, HOUR, "T2", None)])
    pool = Pool("busy", queue, worker(queue, Busy(backfill_dsn)).run, SystemClock(), poll_s=0.05)
    life = asyncio.create_task(pool.run())
    async with asyncio.timeout(60):
        while not pool.stats().finished:  # noqa: ASYNC110 - the code under test has no event for a test
            await asyncio.sleep(0.01)
    await pool.drain(5)
    await life

    assert pool.stats().finished == {"T2/lease_lost": 1}
    rows = await database.pool.fetch(
        "SELECT close, revision, count(*) AS n FROM candles_intraday GROUP BY 1, 2"
    )
    assert [(row["close"], row["revision"], row["n"]) for row in rows] == [(12.0, 0, 60)]
    attempts = await database.pool.fetch("SELECT worker, outcome FROM backfill_attempts ORDER BY ended_at")
    assert [tuple(row) for row in attempts] == [("busy", "lease_expired"), ("rival", "done")]
