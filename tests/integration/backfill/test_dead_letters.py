from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from cluster.market.intervals import Interval
from cluster.storage import backfill_history, dead_letters
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import JobStatus
from cluster.storage.database import Database
from tests.integration.backfill.queue_calls import finish

pytestmark = pytest.mark.postgres


def hour(number: int) -> datetime:
    return datetime(2025, 10, 8, number, tzinfo=UTC)


async def dead(queue: BackfillQueue, start: int, end: int, symbol: str = "AAPL") -> int:
    """A job of these hours whose second attempt was its last."""
    (job,) = await queue.enqueue(symbol, Interval.M1, hour(start), hour(end))
    (lease,) = await queue.claim("w1", 1)
    await queue.fail(lease, "ProviderDown: it hangs", retry_in_s=0)
    (lease,) = await queue.claim("w2", 1)
    await queue.fail(lease, "InvalidSymbol: unknown", retry_in_s=None)
    return job.id


async def requeued(database: Database, queue: BackfillQueue, job: int) -> list[JobStatus]:
    return await dead_letters.requeue(database, job, queue.rules)


async def test_a_dead_job_is_listed_with_its_reason_and_all_its_attempts(
    database: Database, queue: BackfillQueue
) -> None:
    job = await dead(queue, 1, 2)
    await queue.enqueue("MSFT", Interval.M1, hour(1), hour(2))
    (letter,) = await dead_letters.listed(database, 10)
    assert (letter.job.id, letter.job.state, letter.job.reason) == (job, "dead", "InvalidSymbol: unknown")
    assert [(each.attempt, each.worker, each.outcome, each.message) for each in letter.history] == [
        (1, "w1", "failed", "ProviderDown: it hangs"),
        (2, "w2", "dead", "InvalidSymbol: unknown"),
    ]
    assert letter.requeue_count == 0


async def test_dead_jobs_are_paged_from_the_youngest_on(database: Database, queue: BackfillQueue) -> None:
    jobs = [await dead(queue, number, number + 1, f"S{number}") for number in range(3)]
    first = await dead_letters.listed(database, 2)
    assert [each.job.id for each in first] == [jobs[2], jobs[1]]
    assert [each.job.id for each in await dead_letters.listed(database, 2, jobs[1])] == [jobs[0]]


async def test_a_requeued_job_has_all_its_attempts_again_and_keeps_id_and_history(
    database: Database, queue: BackfillQueue
) -> None:
    job = await dead(queue, 1, 2)
    (again,) = await requeued(database, queue, job)
    assert (again.id, again.state, again.attempt, again.finished_at) == (job, "ready", 0, None)
    assert await dead_letters.listed(database, 10) == []

    (lease,) = await queue.claim("w3", 1)
    assert (lease.id, lease.attempt) == (job, 1)
    await queue.fail(lease, "no", retry_in_s=None)
    (letter,) = await dead_letters.listed(database, 10)
    assert letter.requeue_count == 1
    assert [(each.attempt, each.worker) for each in letter.history] == [(1, "w1"), (2, "w2"), (1, "w3")]


async def test_requeueing_twice_at_once_makes_one_job(database: Database, queue: BackfillQueue) -> None:
    job = await dead(queue, 1, 2)
    answers = await asyncio.gather(*(requeued(database, queue, job) for _ in range(4)))
    assert sorted(len(answer) for answer in answers) == [0, 0, 0, 1]
    assert [lease.id for lease in await queue.claim("w", 10)] == [job]


async def test_a_range_that_others_fetch_by_now_is_not_fetched_twice(
    database: Database, queue: BackfillQueue
) -> None:
    job = await dead(queue, 1, 3)
    (other,) = await queue.enqueue("AAPL", Interval.M1, hour(0), hour(4))
    assert [each.id for each in await requeued(database, queue, job)] == [other.id]
    found = await queue.get(job)
    assert found is not None
    assert found.id == other.id
    assert [lease.id for lease in await queue.claim("w", 10)] == [other.id]


async def gone_into_another(database: Database, queue: BackfillQueue) -> tuple[int, JobStatus]:
    """A job that died 40 days ago and was requeued while a younger one, still ready, covers its range."""
    job = await dead(queue, 1, 3)
    (other,) = await queue.enqueue("AAPL", Interval.M1, hour(0), hour(4))
    await database.pool.execute("UPDATE backfill_jobs SET finished_at = now() - interval '40 days'")
    await requeued(database, queue, job)
    return job, other


async def test_a_requeued_job_that_went_into_another_keeps_its_history_as_long_as_that_one(
    database: Database, queue: BackfillQueue
) -> None:
    job, other = await gone_into_another(database, queue)
    await backfill_history.prune(database, 30 * 86_400.0)
    assert [each.worker for each in await queue.attempts(job)] == ["w1", "w2"]

    await database.pool.execute("UPDATE backfill_jobs SET finished_at = now() - interval '40 days'")
    (lease,) = await queue.claim("w3", 1)
    await queue.fail(lease, "no", retry_in_s=None)
    await backfill_history.prune(database, 30 * 86_400.0)
    (letter,) = await dead_letters.listed(database, 10)
    assert (letter.job.id, letter.requeue_count) == (other.id, 1)
    assert [each.worker for each in letter.history] == ["w1", "w2", "w3"]
    assert await queue.attempts(job) == await queue.attempts(other.id) == list(letter.history)

    await requeued(database, queue, other.id)
    (lease,) = await queue.claim("w4", 1)
    await queue.fail(lease, "no", retry_in_s=None)
    assert [each.requeue_count for each in await dead_letters.listed(database, 10)] == [2]


async def test_what_a_requeued_job_went_into_is_answered_for_it_after_that_is_done(
    database: Database, queue: BackfillQueue
) -> None:
    job, other = await gone_into_another(database, queue)
    await finish(queue, (await queue.claim("w3", 1))[0])
    await backfill_history.prune(database, 30 * 86_400.0)
    found = await queue.get(job)
    assert found is not None
    assert (found.id, found.state) == (other.id, "done")


async def test_a_requeued_job_begins_anew(database: Database, queue: BackfillQueue) -> None:
    job = await dead(queue, 1, 3)
    await database.pool.execute("UPDATE backfill_jobs SET started_at = now() - interval '8 days'")
    await requeued(database, queue, job)
    (lease,) = await queue.claim("w", 1)
    assert await queue.snooze(lease, 0.0, "limit") == "ready"


async def test_what_a_running_job_does_not_cover_is_fetched_too(
    database: Database, queue: BackfillQueue
) -> None:
    job = await dead(queue, 1, 4)
    await queue.enqueue("AAPL", Interval.M1, hour(0), hour(2))
    (running,) = await queue.claim("w", 1)
    covering = await requeued(database, queue, job)
    assert [(each.start, each.end, each.state) for each in covering] == [
        (hour(0), hour(2), "leased"),
        (hour(2), hour(4), "ready"),
    ]
    assert running.id == covering[0].id


async def test_what_is_not_dead_is_neither_requeued_nor_deleted(
    database: Database, queue: BackfillQueue
) -> None:
    (job,) = await queue.enqueue("AAPL", Interval.M1, hour(1), hour(2))
    assert await requeued(database, queue, job.id) == []
    assert await dead_letters.delete(database, job.id) is False
    assert await queue.get(job.id) == job
    assert await dead_letters.delete(database, 999_999) is False


async def test_a_deleted_job_is_gone_with_its_attempts(database: Database, queue: BackfillQueue) -> None:
    job = await dead(queue, 1, 2)
    assert await dead_letters.delete(database, job) is True
    assert await queue.get(job) is None
    assert await queue.attempts(job) == []
    assert await dead_letters.delete(database, job) is False
