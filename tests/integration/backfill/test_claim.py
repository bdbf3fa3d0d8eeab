"""Who gets which job, and when."""

from __future__ import annotations

import asyncio

import pytest

from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Database
from tests.integration.backfill.queue_calls import add, claim_one, expire, finish, outcomes

pytestmark = pytest.mark.postgres


async def test_the_most_urgent_goes_first_but_nobody_starves(
    queue: BackfillQueue, database: Database
) -> None:
    """With 15 minutes a tier, T3 beats a T0 that comes more than 45 minutes later."""
    ages_min = {"C": ("T1", 0), "D": ("T3", 44), "B": ("T0", 0), "A": ("T3", 46)}
    for symbol, (tier, age_min) in ages_min.items():
        await add(queue, symbol=symbol, tier=tier)
        await database.pool.execute(
            "UPDATE backfill_jobs SET due = due - make_interval(mins => $2) WHERE symbol = $1",
            symbol,
            age_min,
        )
    one_by_one = [await claim_one(queue) for _ in range(2)]
    assert [lease.symbol for lease in one_by_one] == ["A", "B"]
    assert [lease.symbol for lease in await queue.claim("w", 8)] == ["D", "C"]


async def test_a_claim_takes_at_most_its_limit(queue: BackfillQueue) -> None:
    for symbol in ("A", "B", "C"):
        await add(queue, symbol=symbol)
    assert len(await queue.claim("w", 2)) == 2
    assert len(await queue.claim("w", 2)) == 1


async def test_many_claimers_never_exceed_the_limit_of_a_tier(database: Database) -> None:
    queue = BackfillQueue(database, limits={"T0": 3, "T1": 2})
    for number in range(40):
        await add(queue, symbol=f"T0S{number}", tier="T0")
        await add(queue, symbol=f"T1S{number}", tier="T1")
    peaks = {"T0": 0, "T1": 0}

    async def work(worker: int) -> int:
        done = 0
        while leases := await queue.claim(f"w{worker}", 4) or await waiting():
            for lease in leases:
                running = await database.pool.fetch(
                    "SELECT tier, count(*) AS n FROM backfill_jobs WHERE state = 'leased' GROUP BY tier"
                )
                for row in running:
                    peaks[row["tier"]] = max(peaks[row["tier"]], row["n"])
                await finish(queue, lease, 0)
                done += 1
        return done

    async def waiting() -> list[Lease]:
        """Claim until there is something or nothing is left to wait for."""
        while sum(depth.waiting for depth in (await queue.depth()).values()):
            if leases := await queue.claim("late", 1):
                return leases
        return []

    assert sum(await asyncio.gather(*(work(number) for number in range(12)))) == 80
    assert peaks == {"T0": 3, "T1": 2}


async def test_a_full_tier_does_not_hide_the_jobs_of_another(database: Database) -> None:
    queue = BackfillQueue(database, limits={"T0": 1})
    for number in range(20):
        await add(queue, symbol=f"S{number}", tier="T0")
    await add(queue, symbol="LAST", tier="T3")
    assert [lease.tier for lease in await queue.claim("w", 8)] == ["T0", "T3"]


async def test_an_expired_lease_is_claimed_again_with_its_attempt_counted(
    queue: BackfillQueue, database: Database
) -> None:
    (job,) = await add(queue)
    first = await claim_one(queue, "gone")
    await expire(database, first)
    second = await claim_one(queue, "heir")
    assert (second.id, second.attempt) == (job.id, 2)
    assert second.token != first.token
    assert await outcomes(queue, job.id) == [(1, "lease_expired", None), (2, None, None)]


async def test_an_expired_lease_does_not_fill_the_limit(database: Database) -> None:
    queue = BackfillQueue(database, limits={"T2": 1})
    await add(queue)
    await expire(database, await claim_one(queue))
    assert (await claim_one(queue)).attempt == 2


async def test_a_job_whose_last_lease_expires_is_dead_with_its_history(database: Database) -> None:
    queue = BackfillQueue(database, max_attempts=2)
    (job,) = await add(queue)
    for _ in range(2):
        await expire(database, await claim_one(queue))
    assert await queue.claim("w", 1) == []
    dead = await queue.get(job.id)
    assert dead is not None
    assert (dead.state, dead.reason, dead.attempt) == ("dead", "lease_expired", 2)
    assert await outcomes(queue, job.id) == [(1, "lease_expired", None), (2, "lease_expired", None)]
