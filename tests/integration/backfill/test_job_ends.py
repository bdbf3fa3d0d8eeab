"""How a job ends or waits: renewed, snoozed, failed, given back."""

from __future__ import annotations

import pytest

from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from tests.integration.backfill.queue_calls import (
    M1,
    add,
    claim_one,
    expire,
    minute,
    outcomes,
)

pytestmark = pytest.mark.postgres


async def test_a_beat_renews_every_lease_of_the_worker(queue: BackfillQueue, database: Database) -> None:
    for symbol in ("A", "B"):
        await add(queue, symbol=symbol)
    leases = await queue.claim("w", 2)
    await database.pool.execute("UPDATE backfill_jobs SET lease_until = lease_until - interval '50 s'")
    assert await queue.beat(leases) == {lease.id for lease in leases}
    left_s = await database.pool.fetchval(
        "SELECT extract(epoch FROM min(lease_until) - clock_timestamp())::float8 FROM backfill_jobs"
    )
    assert 30 < left_s <= 60


async def test_a_snooze_gives_the_attempt_back_and_waits_as_long_as_told(
    queue: BackfillQueue, database: Database
) -> None:
    (job,) = await add(queue)
    retry_at = await database.pool.fetchval("SELECT now() + interval '60 s'")
    for _ in range(20):
        assert await queue.snooze(await claim_one(queue), 60.0, "limit reached") == "ready"
        assert await queue.claim("w", 1) == []
        assert await database.pool.fetchval("SELECT run_at >= $1 FROM backfill_jobs", retry_at)
        await database.pool.execute("UPDATE backfill_jobs SET run_at = now()")
    after = await queue.get(job.id)
    assert after is not None
    assert (after.state, after.attempt, after.reason) == ("ready", 0, "limit reached")


async def test_snoozing_is_bounded_by_the_time_since_the_first_attempt(
    queue: BackfillQueue, database: Database
) -> None:
    (job,) = await add(queue)
    await database.pool.execute("UPDATE backfill_jobs SET enqueued_at = now() - interval '8 days'")
    assert await queue.snooze(await claim_one(queue), 0.0, "limit") == "ready"  # it was not tried before
    await database.pool.execute("UPDATE backfill_jobs SET run_at = now()")
    lease = await claim_one(queue)
    await database.pool.execute("UPDATE backfill_jobs SET started_at = now() - interval '8 days'")
    assert await queue.snooze(lease, 0.0, "limit") == "dead"
    after = await queue.get(job.id)
    assert after is not None
    assert (after.state, after.reason) == ("dead", "waited too long: limit")


async def test_a_job_that_keeps_failing_is_dead_with_all_its_attempts(database: Database) -> None:
    queue = BackfillQueue(database, max_attempts=3)
    (job,) = await add(queue)
    ends = [await queue.fail(await claim_one(queue), f"error {n}", retry_in_s=0) for n in (1, 2, 3)]
    assert ends == ["ready", "ready", "dead"]
    after = await queue.get(job.id)
    assert after is not None
    assert (after.state, after.reason, after.attempt) == ("dead", "error 3", 3)
    assert await outcomes(queue, job.id) == [
        (1, "failed", "error 1"),
        (2, "failed", "error 2"),
        (3, "dead", "error 3"),
    ]
    assert await queue.dead_count() == 1


async def test_a_failed_job_waits_before_the_next_attempt(queue: BackfillQueue) -> None:
    await add(queue)
    await queue.fail(await claim_one(queue), "down", retry_in_s=3_600)
    assert await queue.claim("w", 1) == []


async def test_what_can_never_work_is_dead_at_once(queue: BackfillQueue) -> None:
    (job,) = await add(queue)
    assert await queue.fail(await claim_one(queue), "no such symbol", retry_in_s=None) == "dead"
    within = await queue.dead_spans("AAPL", M1, minute(5), minute(6), within_s=60)
    assert within == [(job.start, job.end)]
    assert await queue.dead_spans("AAPL", M1, minute(10), minute(11), within_s=60) == []


async def test_no_key_is_kept_in_a_reason(queue: BackfillQueue) -> None:
    (job,) = await add(queue)
    url = "https://example.com/query?symbol=AAPL&apikey=S3CRET&x=1"
    await queue.fail(await claim_one(queue), f"500 from {url}", retry_in_s=None)
    (attempt,) = await queue.attempts(job.id)
    assert attempt.message == "500 from https://example.com/query?symbol=AAPL&apikey=***&x=1"
    after = await queue.get(job.id)
    assert after is not None
    assert after.reason == attempt.message


async def test_a_released_job_is_ready_at_once_with_its_attempt_back(queue: BackfillQueue) -> None:
    (job,) = await add(queue)
    await queue.release(await claim_one(queue))
    assert (await claim_one(queue)).attempt == 1
    assert await outcomes(queue, job.id) == [(1, "released", None), (1, None, None)]


async def test_depth_counts_what_waits_and_an_expired_lease_waits(
    queue: BackfillQueue, database: Database
) -> None:
    for symbol, tier in (("A", "T0"), ("B", "T0"), ("C", "T3")):
        await add(queue, symbol=symbol, tier=tier)
    await database.pool.execute("UPDATE backfill_jobs SET enqueued_at = now() - interval '90 s'")
    lease = await claim_one(queue)
    depth = await queue.depth()
    assert {tier: one.waiting for tier, one in depth.items()} == {"T0": 1, "T1": 0, "T2": 0, "T3": 1}
    assert depth["T1"].oldest_age_s == 0
    assert 90 <= depth["T3"].oldest_age_s < 300
    await expire(database, lease)
    assert (await queue.depth())["T0"].waiting == 2


async def test_an_unknown_job_is_none(queue: BackfillQueue) -> None:
    assert await queue.get(1) is None
