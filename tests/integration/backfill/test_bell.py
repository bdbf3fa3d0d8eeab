"""Waking workers: at most ten times a second, over a connection that may be lost, and never needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import numpy as np
import pyarrow as pa
import pytest

from cluster.backfill.group_commit import Filled, GroupCommit
from cluster.backfill.pool import Pool
from cluster.backfill.worker import Result
from cluster.clock import SystemClock
from cluster.market import bars
from cluster.market.instants import to_instant
from cluster.market.intervals import Interval
from cluster.storage import backfill_bell, dead_letters
from cluster.storage.backfill_bell import Listener
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Database
from tests.integration.backfill.queue_calls import finish

pytestmark = pytest.mark.postgres

T = datetime(2025, 10, 8, 14, tzinfo=UTC)
_LISTENERS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'finsight-listener'
"""
_NEVER_S = 3_600.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the code under test has no event for a test to wait for
            await asyncio.sleep(0.01)


async def add(queue: BackfillQueue, symbol: str) -> None:
    await queue.enqueue(symbol, Interval.M1, T, T + timedelta(hours=1))


def table(symbol: str, first: datetime, minutes: int) -> pa.Table:
    ts = to_instant(first) + np.arange(minutes).astype("timedelta64[m]")
    flat = np.full(minutes, 11.0)
    return bars.from_columns(symbol, Interval.M1, ts, flat, flat, flat, flat, flat, source="test")


@asynccontextmanager
async def rings(database: Database) -> AsyncIterator[list[int]]:
    """Counts what arrives at a connection of the test's own; the process may ring at once."""
    heard: list[int] = []
    backfill_bell._rung_at_s.pop(database, None)
    connection = await asyncpg.connect(database.dsn)
    await connection.add_listener("finsight_backfill", lambda *_: heard.append(1))
    yield heard
    await connection.close()


async def test_many_requests_at_once_ring_once(database: Database, queue: BackfillQueue) -> None:
    async with rings(database) as heard:
        await asyncio.gather(*(add(queue, f"S{number}") for number in range(20)))
        backfill_bell._rung_at_s[database] -= backfill_bell.QUIET_S
        await add(queue, "LAST")
        await until(lambda: len(heard) >= 2)
        assert len(heard) <= 20  # the twenty may take longer than the pause between two rings


async def test_a_worker_that_is_not_due_to_look_is_woken(database: Database, queue: BackfillQueue) -> None:
    done: list[int] = []

    async def work(lease: Lease) -> Result:
        await finish(queue, lease, 0)
        done.append(lease.id)
        return "done"

    pool = Pool("w", queue, work, SystemClock(), poll_s=_NEVER_S)
    running = asyncio.create_task(pool.run())
    listener = asyncio.create_task(Listener(database.dsn, pool.wake, reconnect_s=0.01).run())
    async with asyncio.timeout(30):
        while not await database.pool.fetchval(_LISTENERS):  # noqa: ASYNC110 - told by the server only
            await asyncio.sleep(0.01)
    await add(queue, "A")
    await until(lambda: len(done) == 1)

    backfill_bell._rung_at_s[database] = float("inf")  # nobody rings any more
    await add(queue, "B")
    lost = await database.pool.fetchval(_LISTENERS)
    await database.pool.execute("SELECT pg_terminate_backend($1)", lost)
    await until(lambda: len(done) == 2)  # the listener that comes back has the pool look

    await pool.drain(0)
    await running
    listener.cancel()


async def test_without_a_bell_everything_is_done_a_little_later(
    database: Database, queue: BackfillQueue
) -> None:
    async def work(lease: Lease) -> Result:
        await finish(queue, lease, 0)
        return "done"

    pool = Pool("w", queue, work, SystemClock(), poll_s=0.05)
    running = asyncio.create_task(pool.run())
    for number in range(20):
        await add(queue, f"S{number}")
    await until(lambda: pool.stats().finished == {"T2/done": 20})
    await pool.drain(0)
    await running


async def test_a_bell_that_cannot_ring_refuses_no_request(
    database: Database, queue: BackfillQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    backfill_bell._rung_at_s.pop(database, None)
    monkeypatch.setattr(backfill_bell, "_RING", "SELECT no_such_function()")
    await add(queue, "A")
    assert len(await queue.claim("w", 1)) == 1


async def test_a_job_that_is_put_back_by_a_person_rings(database: Database, queue: BackfillQueue) -> None:
    await add(queue, "A")
    (lease,) = await queue.claim("w", 1)
    await queue.fail(lease, "no", retry_in_s=None)
    async with rings(database) as heard:
        await dead_letters.requeue(database, lease.id, queue.rules)
        await until(lambda: len(heard) == 1)


async def test_storing_bars_rings_no_bell(database: Database, queue: BackfillQueue) -> None:
    """A NOTIFY takes a lock of the whole database at commit, for which all writers would wait."""
    await add(queue, "A")
    leases = await queue.claim("w", 1)
    async with rings(database) as heard:
        filled = Filled(leases[0], "test", table("A", T, 60), ())
        assert await GroupCommit(queue, SystemClock()).store(filled) == 60
        await database.pool.execute("SELECT pg_notify('finsight_backfill', '')")  # after all others
        await until(lambda: len(heard) >= 1)
        assert len(heard) == 1
