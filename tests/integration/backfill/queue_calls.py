"""What the tests of the queue ask of it; ranges are in minutes after `T`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cluster.market.intervals import Interval
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import JobStatus, Lease
from cluster.storage.database import Connection, Database

M1 = Interval.M1
T = datetime(2025, 10, 8, 14, tzinfo=UTC)
SHORT_S = 0.15


def minute(number: int) -> datetime:
    return T + timedelta(minutes=number)


def span(job: JobStatus) -> tuple[int, int]:
    """Range of a job in minutes after `T`."""
    return int((job.start - T).total_seconds() // 60), int((job.end - T).total_seconds() // 60)


async def add(
    queue: BackfillQueue, first: int = 0, after: int = 10, *, symbol: str = "AAPL", tier: str = "T2"
) -> list[JobStatus]:
    return await queue.enqueue(symbol, M1, minute(first), minute(after), tier=tier)  # type: ignore[arg-type]


async def claim_one(queue: BackfillQueue, worker: str = "w") -> Lease:
    (lease,) = await queue.claim(worker, 1)
    return lease


async def finish(queue: BackfillQueue, lease: Lease, rows: int = 0, fence: Connection | None = None) -> None:
    """The job is done, by the attempt that has it."""
    assert await queue.complete_many([(lease, rows)], fence) == {lease.id}


async def states(database: Database) -> list[tuple[str, int, int]]:
    """State and range of all rows but merged ones, in minutes after `T`."""
    rows = await database.pool.fetch(
        "SELECT state, start_ts, end_ts FROM backfill_jobs WHERE state <> 'merged' ORDER BY start_ts"
    )
    return [
        (
            row["state"],
            int((row["start_ts"] - T).total_seconds() // 60),
            int((row["end_ts"] - T).total_seconds() // 60),
        )
        for row in rows
    ]


async def expire(database: Database, lease: Lease) -> None:
    """Let the lease end now, without waiting for it."""
    await database.pool.execute(
        "UPDATE backfill_jobs SET lease_until = clock_timestamp() WHERE id = $1", lease.id
    )


async def outcomes(queue: BackfillQueue, job: int) -> list[tuple[int, str | None, str | None]]:
    return [(one.attempt, one.outcome, one.message) for one in await queue.attempts(job)]
