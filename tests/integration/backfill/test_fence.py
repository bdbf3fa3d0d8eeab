"""A worker that has lost its lease writes nothing and ends nothing."""

from __future__ import annotations

import pytest

from cluster.errors import LeaseLost
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Database
from tests.integration.backfill.queue_calls import SHORT_S, add, claim_one, expire, finish, outcomes

pytestmark = pytest.mark.postgres


async def test_the_zombie_writes_nothing_and_finishes_nothing(
    queue: BackfillQueue, database: Database
) -> None:
    (job,) = await add(queue)
    zombie = await claim_one(queue, "same name")
    await expire(database, zombie)
    heir = await claim_one(queue, "same name")
    with pytest.raises(LeaseLost):
        async with queue.fenced(zombie):
            pytest.fail("a zombie must not get a connection")
    assert await queue.complete_many([(zombie, 10)]) == set()
    for late in (
        queue.fail(zombie, "late", retry_in_s=0),
        queue.snooze(zombie, 0.0, "late"),
        queue.release(zombie),
    ):
        with pytest.raises(LeaseLost):
            await late
    assert await queue.beat([zombie, heir]) == {heir.id}
    await finish(queue, heir, 7)
    done = await queue.get(job.id)
    assert done is not None
    assert (done.state, done.rows_written) == ("done", 7)


async def test_an_expired_lease_is_lost_even_if_nobody_took_it(
    queue: BackfillQueue, database: Database
) -> None:
    await add(queue)
    lease = await claim_one(queue)
    await expire(database, lease)
    assert await queue.beat([lease]) == set()
    assert await queue.complete_many([(lease, 1)]) == set()


async def test_a_job_is_completed_once(queue: BackfillQueue) -> None:
    await add(queue)
    lease = await claim_one(queue)
    assert await queue.complete_many([(lease, 1)]) == {lease.id}
    assert await queue.complete_many([(lease, 1)]) == set()


async def test_a_crash_between_write_and_completion_leaves_nothing(
    queue: BackfillQueue, database: Database
) -> None:
    (job,) = await add(queue)
    lease = await claim_one(queue)

    async def crash_after_the_write() -> None:
        async with queue.fenced(lease) as connection:
            await connection.execute("INSERT INTO effect VALUES (1)")
            await finish(queue, lease, 1, connection)
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        await crash_after_the_write()
    assert await database.pool.fetchval("SELECT count(*) FROM effect") == 0
    after = await queue.get(job.id)
    assert after is not None
    assert after.state == "leased"


async def test_write_and_completion_commit_together(queue: BackfillQueue, database: Database) -> None:
    (job,) = await add(queue)
    lease = await claim_one(queue)
    async with queue.fenced(lease) as connection:
        await connection.execute("INSERT INTO effect VALUES (1)")
        await finish(queue, lease, 1, connection)
        assert await database.pool.fetchval("SELECT count(*) FROM effect") == 0
        before = await queue.get(job.id)
        assert before is not None
        assert before.state == "leased"
    assert await database.pool.fetchval("SELECT count(*) FROM effect") == 1
    assert await outcomes(queue, job.id) == [(1, "done", None)]


async def test_nobody_takes_a_job_while_its_worker_holds_the_fence(
    queue: BackfillQueue, database: Database
) -> None:
    """A lease that runs out inside the fence is still safe: the row is locked until the end."""
    short = BackfillQueue(database, lease_s=SHORT_S)
    await add(queue)
    lease = await claim_one(short)
    async with queue.fenced(lease) as connection:
        while not await connection.fetchval("SELECT clock_timestamp() > $1", lease.lease_until):
            pass
        assert await queue.claim("thief", 1) == []
        await finish(queue, lease, 3, connection)
    after = await queue.get(lease.id)
    assert after is not None
    assert after.state == "done"


async def test_a_beat_does_not_wait_for_the_fence_of_a_neighbour(queue: BackfillQueue) -> None:
    await add(queue, symbol="A")
    await add(queue, symbol="B")
    leases = await queue.claim("w", 2)
    async with queue.fenced(leases[0]):
        assert await queue.beat(leases) == {lease.id for lease in leases}


async def test_a_worker_that_freezes_inside_the_fence_loses_it(
    queue: BackfillQueue, database: Database
) -> None:
    short = BackfillQueue(database, lease_s=SHORT_S)
    (job,) = await add(queue)
    frozen = await claim_one(short)
    heirs: list[Lease] = []

    async def freeze_then_write() -> None:
        async with short.fenced(frozen) as connection:
            while not heirs:  # the frozen worker says nothing; the server ends its session
                heirs.extend(await queue.claim("heir", 1))
            await connection.execute("INSERT INTO effect VALUES (1)")

    with pytest.raises(Exception, match=r"idle-in-transaction|closed|was lost"):
        await freeze_then_write()
    assert [(heir.id, heir.attempt) for heir in heirs] == [(job.id, 2)]
    assert await database.pool.fetchval("SELECT count(*) FROM effect") == 0
