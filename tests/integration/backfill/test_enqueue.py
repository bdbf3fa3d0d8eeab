"""What becomes of a request: new jobs, or those that are there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from cluster.errors import InputError
from cluster.market.intervals import Interval
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import JobStatus
from cluster.storage.database import Connection, Database
from tests.integration.backfill.queue_calls import (
    M1,
    add,
    claim_one,
    minute,
    span,
    states,
)

pytestmark = pytest.mark.postgres


async def waiting_request(
    blocker: Connection, queue: BackfillQueue, first: int, after: int
) -> asyncio.Task[list[JobStatus]]:
    """A request that has come as far as a row that the transaction of `blocker` holds."""
    request = asyncio.create_task(add(queue, first, after))
    while not await blocker.fetchval(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')"
    ):
        assert not request.done()
    return request


async def test_a_new_range_is_one_ready_job(queue: BackfillQueue) -> None:
    (job,) = await add(queue, tier="T1")
    assert (job.state, job.attempt, job.tier, span(job)) == ("ready", 0, "T1", (0, 10))
    assert await queue.get(job.id) == job


async def test_a_covered_range_answers_the_existing_job(queue: BackfillQueue) -> None:
    (job,) = await add(queue, 0, 60)
    assert [again.id for again in await add(queue, 10, 20)] == [job.id]


async def test_a_thousand_parallel_requests_for_one_range_leave_one_row(
    queue: BackfillQueue, database: Database
) -> None:
    answers = await asyncio.gather(*(add(queue) for _ in range(1_000)))
    assert len({job.id for jobs in answers for job in jobs}) == 1
    assert await states(database) == [("ready", 0, 10)]


async def test_overlapping_and_adjacent_ready_ranges_become_one(
    queue: BackfillQueue, database: Database
) -> None:
    (first,) = await add(queue, 0, 10)
    (second,) = await add(queue, 20, 30)
    (joined,) = await add(queue, 10, 25)
    assert await states(database) == [("ready", 0, 30)]
    assert joined.id == first.id
    assert await queue.get(second.id) == joined


async def test_a_leased_range_is_not_queued_again_and_not_changed(
    queue: BackfillQueue, database: Database
) -> None:
    await add(queue, 10, 20)
    lease = await claim_one(queue)
    jobs = await add(queue, 0, 30)
    assert [(span(job), job.state) for job in jobs] == [
        ((0, 10), "ready"),
        ((10, 20), "leased"),
        ((20, 30), "ready"),
    ]
    assert jobs[1].id == lease.id
    assert await states(database) == [("ready", 0, 10), ("leased", 10, 20), ("ready", 20, 30)]


async def test_a_job_never_gets_longer_than_the_longest(database: Database) -> None:
    queue = BackfillQueue(database, longest_bars=10)
    assert [span(job) for job in await add(queue, 0, 25)] == [(0, 10), (10, 20), (20, 25)]
    await add(queue, 25, 28)
    await add(queue, 28, 33)
    assert await states(database) == [
        ("ready", 0, 10),
        ("ready", 10, 20),
        ("ready", 20, 28),
        ("ready", 28, 33),
    ]


async def test_other_symbols_intervals_and_providers_stay_apart(
    queue: BackfillQueue, database: Database
) -> None:
    await add(queue)
    await add(queue, symbol="MSFT")
    await queue.enqueue("AAPL", Interval.M5, minute(0), minute(10))
    await queue.enqueue("AAPL", M1, minute(0), minute(10), provider="binance")
    assert len(await states(database)) == 4


async def test_a_more_urgent_request_raises_the_tier_of_the_waiting_job(queue: BackfillQueue) -> None:
    await add(queue, tier="T3")
    assert [job.tier for job in await add(queue, tier="T0")] == ["T0"]
    assert [job.tier for job in await add(queue, tier="T2")] == ["T0"]


async def test_a_grown_job_begins_anew_with_all_its_attempts(queue: BackfillQueue) -> None:
    await add(queue, 0, 10)
    await queue.fail(await claim_one(queue), "down", retry_in_s=0)
    (same,) = await add(queue, 0, 10)
    assert (same.attempt, same.started_at is None) == (1, False)
    (grown,) = await add(queue, 0, 11)
    assert (grown.attempt, grown.started_at) == (0, None)


async def test_new_minutes_do_not_wait_with_an_old_job_for_what_may_be_no_concern_of_theirs(
    queue: BackfillQueue, database: Database
) -> None:
    (old,) = await add(queue, 0, 10, tier="T3")
    retry_at = await database.pool.fetchval("SELECT now() + interval '1 day'")
    await queue.snooze(await claim_one(queue), 86_400.0, "daily budget")
    urgent, waiting = (await add(queue, 10, 11, tier="T0"))[0], await queue.get(old.id)
    assert waiting is not None
    assert (span(urgent), span(waiting), waiting.tier) == ((10, 11), (0, 10), "T3")
    assert [lease.id for lease in await queue.claim("w", 8)] == [urgent.id]
    assert await database.pool.fetchval(
        "SELECT run_at >= $1 FROM backfill_jobs WHERE id = $2", retry_at, old.id
    )


async def test_who_asks_around_a_waiting_job_gets_what_it_leaves_and_the_job_itself(
    queue: BackfillQueue, database: Database
) -> None:
    (old,) = await add(queue, 10, 20)
    await queue.fail(await claim_one(queue), "down", retry_in_s=3_600)
    before, waiting, after = await add(queue, 0, 30)
    assert [span(job) for job in (before, waiting, after)] == [(0, 10), (10, 20), (20, 30)]
    assert (waiting.id, waiting.attempt) == (old.id, 1)
    await database.pool.execute("UPDATE backfill_jobs SET run_at = now()")
    await add(queue, 0, 30)  # what waited can join again
    assert await states(database) == [("ready", 0, 30)]


async def test_a_more_urgent_request_for_waiting_minutes_is_tried_after_ten_minutes_at_the_latest(
    queue: BackfillQueue, database: Database
) -> None:
    (job,) = await add(queue, 0, 10, tier="T2")
    await queue.snooze(await claim_one(queue), 86_400.0, "daily budget")
    waits = "SELECT run_at - now() > interval '9 min', run_at - now() <= interval '10 min' FROM backfill_jobs"
    await add(queue, 0, 5, tier="T2")
    assert tuple((await database.pool.fetch(waits))[0]) == (True, False)
    assert [(one.id, one.tier) for one in await add(queue, 0, 5, tier="T0")] == [(job.id, "T0")]
    assert tuple((await database.pool.fetch(waits))[0]) == (True, True)
    assert await states(database) == [("ready", 0, 10)]


async def test_a_job_that_is_given_back_during_the_request_is_not_queued_twice(
    queue: BackfillQueue, database: Database
) -> None:
    """The request waits for a lock while a leased job, which it saw as leased, becomes ready."""
    await add(queue, 20, 30)
    lease = await claim_one(queue)
    (waiting,) = await add(queue, 0, 10)
    async with database.transaction() as blocker:
        await blocker.execute("SELECT FROM backfill_jobs WHERE id = $1 FOR UPDATE", waiting.id)
        request = await waiting_request(blocker, queue, 0, 30)
        await queue.release(lease)
    await request
    assert await states(database) == [("ready", 0, 20), ("ready", 20, 30)]


async def test_a_job_that_is_claimed_during_the_request_is_not_changed(
    queue: BackfillQueue, database: Database
) -> None:
    (job,) = await add(queue, 0, 10)
    async with database.transaction() as claim:
        await claim.execute(
            "UPDATE backfill_jobs SET state = 'leased', lease_token = gen_random_uuid(), "
            "lease_until = now() + interval '1 minute' WHERE id = $1",
            job.id,
        )
        request = await waiting_request(claim, queue, 0, 30)
    await request
    assert await states(database) == [("leased", 0, 10), ("ready", 10, 30)]


async def test_the_inclusive_trap_is_one_job_of_eleven_minutes(queue: BackfillQueue) -> None:
    """`BETWEEN '14:00' AND '14:10'` names eleven minute bars; the half-open range ends at 14:11."""
    for number in range(11):
        await add(queue, number, number + 1)
    (job,) = await add(queue, 0, 11)
    assert job.start.isoformat() == "2025-10-08T14:00:00+00:00"
    assert job.end.isoformat() == "2025-10-08T14:11:00+00:00"


async def test_an_impossible_request_is_refused(database: Database) -> None:
    queue = BackfillQueue(database, longest_bars=1, most_jobs=5)
    with pytest.raises(InputError, match="not before its end"):
        await add(queue, 10, 10)
    with pytest.raises(InputError, match="has no time zone"):
        await queue.enqueue("AAPL", M1, datetime(2025, 1, 1), minute(0))  # noqa: DTZ001 - the point
    with pytest.raises(InputError, match="tier 'T9'"):
        await add(queue, tier="T9")
    with pytest.raises(InputError, match="would become 6 jobs"):
        await add(queue, 0, 6)
    first, last = datetime(1800, 1, 1, tzinfo=UTC), datetime(8999, 12, 31, tzinfo=UTC)
    with pytest.raises(InputError, match="would become 3786832800 jobs"):  # 2 629 745 days
        await queue.enqueue("AAPL", M1, first, last)
    assert await states(database) == []


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"start": datetime(1, 1, 1, tzinfo=UTC), "end": datetime(1, 2, 1, tzinfo=UTC)}, "#/start"),
        ({"start": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))}, "#/start"),
        ({"end": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14)))}, "#/end"),
        ({"provider": "sam\0ple"}, "#/provider"),
    ],
)
async def test_what_no_job_can_hold_is_refused(
    queue: BackfillQueue, database: Database, changes: dict[str, Any], pointer: str
) -> None:
    wanted = {"start": minute(0), "end": minute(10), **changes}
    with pytest.raises(InputError) as caught:
        await queue.enqueue("SPX", Interval.D1, **wanted)
    assert caught.value.pointer == pointer
    assert await states(database) == []
