"""Any requests at once, with claims in between: every wanted minute is in the queue exactly once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.market.intervals import Interval
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import JobStatus
from cluster.storage.database import Database

pytestmark = pytest.mark.postgres

T = datetime(2025, 10, 8, 14, tzinfo=UTC)
LONGEST = 40

requests = st.lists(st.tuples(st.integers(0, 120), st.integers(1, 60)), min_size=1, max_size=12)


def minute(number: int) -> datetime:
    return T + timedelta(minutes=number)


async def covered(database: Database) -> list[int]:
    """Every minute after `T` of every active job, as often as a job holds it."""
    rows = await database.pool.fetch(
        "SELECT start_ts, end_ts FROM backfill_jobs WHERE state IN ('ready', 'leased')"
    )
    one = timedelta(minutes=1)
    return [
        number for row in rows for number in range((row["start_ts"] - T) // one, (row["end_ts"] - T) // one)
    ]


@given(requests, st.integers(0, 3))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_parallel_requests_are_covered_exactly_once(
    database: Database, wanted: list[tuple[int, int]], claims: int
) -> None:
    await database.pool.execute("TRUNCATE backfill_jobs, backfill_attempts")
    queue = BackfillQueue(database, longest_bars=LONGEST)

    async def enqueue(first: int, length: int) -> list[JobStatus]:
        return await queue.enqueue("AAPL", Interval.M1, minute(first), minute(first + length))

    answers, _ = await asyncio.gather(
        asyncio.gather(*(enqueue(*one) for one in wanted)),
        asyncio.gather(*(queue.claim("w", 2) for _ in range(claims))),
    )
    minutes = await covered(database)
    assert sorted(minutes) == sorted({first + n for first, length in wanted for n in range(length)})
    for (first, length), jobs in zip(wanted, answers, strict=True):
        assert jobs[0].start <= minute(first)
        assert jobs[-1].end >= minute(first + length)
        for job in jobs:
            now = await queue.get(job.id)
            assert now is not None
            assert now.start <= job.start
            assert now.end >= job.end
            assert now.end - now.start <= timedelta(minutes=LONGEST)
