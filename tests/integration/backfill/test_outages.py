"""A database in trouble costs no job an attempt; bars that the database refuses do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from cluster.backfill.pool import Pool
from cluster.backfill.worker import Worker
from cluster.clock import SystemClock
from cluster.errors import StorageError
from cluster.market import bars, calendars
from cluster.market.instants import Instants, to_instant
from cluster.market.intervals import Interval
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Database
from tests.integration.backfill.queue_calls import finish

pytestmark = pytest.mark.postgres

M1 = Interval.M1
T = datetime(2025, 10, 8, 14, tzinfo=UTC)
END = T + timedelta(minutes=10)
_WAIT_S = "SELECT extract(epoch FROM run_at - clock_timestamp())::float8 FROM backfill_jobs"
_REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'told so' USING ERRCODE = '{state}'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON candles_intraday EXECUTE FUNCTION refuse()
"""
_ACCEPT = "DROP TRIGGER IF EXISTS refuse ON candles_intraday; DROP FUNCTION IF EXISTS refuse"


class Ten:
    """Gives ten bars."""

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        ts = to_instant(T) + np.arange(10).astype("timedelta64[m]")
        flat = np.full(10, 11.0)
        return bars.from_columns(symbol, M1, ts, flat, flat, flat, flat, flat, source="test")


async def every_minute(symbol: str, interval: Interval, start: datetime, end: datetime) -> Instants | None:
    return calendars.expected_opens("24/7", interval, start, end)


async def leased(queue: BackfillQueue) -> Lease:
    await queue.enqueue("A", M1, T, END)
    (lease,) = await queue.claim("w", 1)
    return lease


async def ready_now(database: Database) -> None:
    await database.pool.execute("UPDATE backfill_jobs SET run_at = now()")


async def expire(database: Database) -> None:
    await database.pool.execute("UPDATE backfill_jobs SET lease_until = now() WHERE state = 'leased'")


async def seen(database: Database) -> tuple[str, int]:
    """State and attempts of the only job."""
    row = await database.pool.fetchrow("SELECT state, attempt FROM backfill_jobs")
    assert row is not None
    return row["state"], row["attempt"]


async def work(queue: BackfillQueue, database: Database) -> str:
    """What becomes of the job at a worker, in the end."""
    worker = Worker(queue, {"ten": Ten()}, every_minute, SystemClock())
    pool = Pool("w", queue, worker.run, SystemClock(), poll_s=0.01)
    life = asyncio.create_task(pool.run())
    async with asyncio.timeout(60):
        while not pool.stats().finished:  # noqa: ASYNC110 - told by the pool only
            await asyncio.sleep(0.01)
    await pool.drain(5)
    await life
    (result,) = pool.stats().finished
    return result


@pytest.mark.parametrize(
    ("state", "result", "after"),
    [
        ("53100", "T2/postponed", ("ready", 0)),  # disk full
        ("25006", "T2/postponed", ("ready", 0)),  # read-only
        ("58030", "T2/postponed", ("ready", 0)),  # input/output error
        ("23502", "T2/retried", ("ready", 1)),  # a value is missing
        ("22003", "T2/retried", ("ready", 1)),  # a number has no room
    ],
)
async def test_only_what_the_job_itself_brings_uses_an_attempt(
    queue: BackfillQueue, database: Database, state: str, result: str, after: tuple[str, int]
) -> None:
    await queue.enqueue("A", M1, T, END)
    await database.pool.execute(_REFUSE.format(state=state))
    try:
        assert await work(queue, database) == result
    finally:
        await database.pool.execute(_ACCEPT)
    assert await seen(database) == after
    await ready_now(database)
    assert await work(queue, database) == "T2/done"


async def test_bars_that_are_never_accepted_end_in_the_dead_letters(database: Database) -> None:
    queue = BackfillQueue(database, max_attempts=2)
    await queue.enqueue("A", M1, T, END)
    await database.pool.execute(_REFUSE.format(state="22003"))
    try:
        assert await work(queue, database) == "T2/retried"
        await ready_now(database)
        assert await work(queue, database) == "T2/dead"
    finally:
        await database.pool.execute(_ACCEPT)
    assert await seen(database) == ("dead", 2)


async def test_an_excused_job_waits_longer_each_time_up_to_a_minute(
    queue: BackfillQueue, database: Database
) -> None:
    waits = []
    lease = await leased(queue)
    for _ in range(9):
        assert await queue.excuse([lease], "disk full") == []
        assert await seen(database) == ("ready", 0)
        waits.append(await database.pool.fetchval(_WAIT_S))
        await ready_now(database)
        (lease,) = await queue.claim("w", 1)
    longest = [min(2**number, 60) for number in range(9)]
    assert all(most / 3 < wait <= most for wait, most in zip(waits, longest, strict=True)), waits
    assert [one.outcome for one in await queue.attempts(lease.id)] == ["snoozed"] * 9 + [None]


async def test_an_attempt_whose_lease_expired_meanwhile_is_given_back(
    queue: BackfillQueue, database: Database
) -> None:
    lease = await leased(queue)
    await expire(database)
    assert await queue.claim("other", 0) == []
    assert await seen(database) == ("ready", 1)
    assert await queue.excuse([lease], "away") == []
    assert await seen(database) == ("ready", 0)
    assert await queue.excuse([lease], "away") == []  # once
    assert await seen(database) == ("ready", 0)


async def test_who_has_the_job_now_keeps_it(queue: BackfillQueue, database: Database) -> None:
    lease = await leased(queue)
    await expire(database)
    (heir,) = await queue.claim("heir", 1)
    assert heir.attempt == 2
    assert await queue.excuse([lease], "away") == []
    assert await seen(database) == ("leased", 1)
    await finish(queue, heir, 10)
    assert await queue.excuse([lease, heir], "away") == []
    assert await seen(database) == ("done", 1)


async def test_an_attempt_that_still_writes_is_to_be_excused_later(
    queue: BackfillQueue, database: Database
) -> None:
    lease = await leased(queue)
    async with queue.fenced(lease):
        assert await queue.excuse([lease], "away") == [lease]
    assert await queue.excuse([lease], "away") == []
    assert await seen(database) == ("ready", 0)


async def test_an_outage_is_no_excuse_for_a_job_that_was_first_tried_long_ago(database: Database) -> None:
    queue = BackfillQueue(database, longest_snooze_s=60.0)
    lease = await leased(queue)
    await database.pool.execute("UPDATE backfill_jobs SET started_at = now() - interval '2 min'")
    assert await queue.excuse([lease], "away") == [lease]
    await expire(database)
    await queue.claim("other", 0)
    assert await queue.excuse([lease], "away") == []
    assert await seen(database) == ("ready", 1)


async def test_a_full_disk_is_told_as_an_error_of_the_storage(database: Database) -> None:
    with pytest.raises(StorageError, match="is in trouble: told so"):
        async with database.connection() as connection:
            await connection.execute("DO $$ BEGIN RAISE 'told so' USING ERRCODE = 'disk_full'; END $$")
