"""Finished jobs are kept for a while; what is not finished is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cluster.market.intervals import Interval
from cluster.storage import backfill_history
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from tests.integration.backfill.queue_calls import finish

pytestmark = pytest.mark.postgres

T = datetime(2025, 10, 8, tzinfo=UTC)
DAY_S = 86_400.0


async def states(database: Database) -> dict[str, int]:
    rows = await database.pool.fetch("SELECT state, count(*) AS n FROM backfill_jobs GROUP BY state")
    return {row["state"]: row["n"] for row in rows}


async def test_only_what_finished_long_ago_is_forgotten_with_its_attempts(
    database: Database, queue: BackfillQueue
) -> None:
    for number in range(12):
        await queue.enqueue(f"S{number}", Interval.M1, T, T + timedelta(hours=1))
    leases = await queue.claim("w", 10)
    await queue.complete_many([(lease, 0) for lease in leases[:6]])
    await queue.fail(leases[6], "no", retry_in_s=None)
    await database.pool.execute("UPDATE backfill_jobs SET finished_at = finished_at - interval '2 days'")
    await finish(queue, leases[7], 0)

    await backfill_history.prune(database, DAY_S, step=5)

    assert await states(database) == {"dead": 1, "done": 1, "leased": 2, "ready": 2}
    assert await database.pool.fetchval("SELECT count(*) FROM backfill_attempts") == 2


async def test_a_job_goes_after_those_that_were_merged_into_it(
    database: Database, queue: BackfillQueue
) -> None:
    for first, after in ((0, 1), (2, 3), (1, 2)):
        await queue.enqueue("A", Interval.M1, T + timedelta(hours=first), T + timedelta(hours=after))
    (lease,) = await queue.claim("w", 8)
    await finish(queue, lease, 0)
    assert await states(database) == {"done": 1, "merged": 1}
    await backfill_history.prune(database, -1.0)
    assert await states(database) == {"done": 1}
    await backfill_history.prune(database, -1.0)
    assert await states(database) == {}
