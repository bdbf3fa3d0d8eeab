"""Worker processes that are killed and frozen at random moments: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.market.intervals import Interval
from tests.chaos import fleet as fleets
from tests.chaos.fleet import Fleet, count, fleet, outcomes, query, require_kept, synthetic, until, until_done
from tests.chaos.worker_process import Orders

pytestmark = [pytest.mark.chaos, pytest.mark.postgres, pytest.mark.slow]

M1 = Interval.M1
START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 4, 16, tzinfo=UTC)
SYMBOLS = ("SYN0001", "SYN0002", "SYN0003")
SEED = 7
_LEASES = "SELECT lease_token::text FROM backfill_jobs WHERE state = 'leased' AND leased_by = $1"
KILLS = 12
ROUNDS = 3
_EXPIRED = "SELECT token::text FROM backfill_attempts WHERE outcome = 'lease_expired'"
PROVIDERS = {"synthetic": {"seed": SEED, "latency_s": 0.05}}


@pytest.fixture
def orders(database_url: str, tmp_path: Path) -> Orders:
    folder = fleets.log_folder(tmp_path)
    return Orders("", database_url, folder, PROVIDERS, commit_pause_s=0.02)


async def test_workers_killed_at_random_moments_lose_no_bar_and_do_no_job_twice(
    orders: Orders, rng: random.Random
) -> None:
    jobs = await fleets.enqueue(orders.dsn, SYMBOLS, M1, START, END, bars=15)
    assert jobs == 192
    with fleet(orders) as workers:
        workers.start("one", "two", "three")
        for _ in range(KILLS):
            await strike(workers, rng)
        await until_done(orders.dsn, jobs)
        events = workers.history()
    await require_kept(orders.dsn, events, await synthetic(SEED, SYMBOLS, M1, START, END))
    ended = await outcomes(orders.dsn)
    assert ended.pop("done") == jobs
    assert ended.pop("lease_expired") >= 1
    assert ended == {}


async def strike(workers: Fleet, rng: random.Random) -> None:
    """Kill a worker: half the time as soon as anybody is about to commit, else after a while."""
    if rng.random() < 0.5:
        await until_more(workers, 1)
    else:
        await asyncio.sleep(rng.uniform(0.0, 0.2))
    name = rng.choice(workers.names())
    workers.kill(name)
    workers.start(name)


async def until_more(workers: Fleet, events: int) -> None:
    """Until so many lines were added to the log, or nothing is left to do."""
    before = len(workers.history())

    async def more() -> bool:
        return len(workers.history()) >= before + events or await count(workers.orders.dsn, "ready") == 0

    await until(more)


async def test_workers_frozen_past_their_leases_write_nothing_when_they_go_on(
    orders: Orders, rng: random.Random
) -> None:
    jobs = await fleets.enqueue(orders.dsn, SYMBOLS, M1, START, END, bars=60)
    with fleet(replace(orders, lease_s=1.0, commit_pause_s=0.1)) as workers:
        workers.start("one", "two")
        late: set[str] = set()
        for _ in range(ROUNDS):
            late |= await freeze(workers, rng.choice(workers.names()))
        await until_done(orders.dsn, jobs)
        assert [workers.drain(name) for name in workers.names()] == [0, 0]
        events = workers.history()
    await require_kept(orders.dsn, events, await synthetic(SEED, SYMBOLS, M1, START, END))
    assert late
    assert {event.op for event in events if event.kind == "ok"} & late == set()
    ended = await outcomes(orders.dsn)  # who was cut off while frozen gets the attempt back
    assert ended.get("lease_expired", 0) + ended.get("snoozed", 0) >= len(late)


async def test_a_worker_that_holds_its_leases_for_renewed_is_refused_by_the_fence(orders: Orders) -> None:
    jobs = await fleets.enqueue(orders.dsn, SYMBOLS, M1, START, END, bars=60)
    slow = {"synthetic": {"seed": SEED, "latency_s": 3.0}}
    with fleet(replace(orders, lease_s=1.0)) as workers:
        workers.start("zombie", is_deluded=True, providers=slow)

        async def has_leases() -> bool:
            return len(await leases(orders.dsn, "zombie")) == 4

        await until(has_leases)
        workers.start("sound")
        await until_done(orders.dsn, jobs)
        assert workers.drain("zombie") == 0
        events = workers.history()
    await require_kept(orders.dsn, events, await synthetic(SEED, SYMBOLS, M1, START, END))
    assert {event.process for event in events} == {"sound"}
    assert (await outcomes(orders.dsn))["lease_expired"] >= 4


async def freeze(workers: Fleet, name: str) -> set[str]:
    """Stop a worker in the middle of a transaction until its leases are gone; the attempts it had begun."""

    async def about_to_commit() -> bool:
        return bool(fleets.open_writes(workers, name)) or await count(workers.orders.dsn, "ready") == 0

    await until(about_to_commit)
    workers.signal(name, signal.SIGSTOP)
    held = await leases(workers.orders.dsn, name)

    async def expired() -> bool:
        return not await leases(workers.orders.dsn, name) & held

    try:
        await until(expired)
    finally:
        workers.signal(name, signal.SIGCONT)
    return held & {row["token"] for row in await query(workers.orders.dsn, _EXPIRED)}


async def leases(dsn: str, name: str) -> set[str]:
    """Tokens of the jobs that a worker holds, by the database."""
    rows = await query(
        dsn, "SELECT lease_token::text FROM backfill_jobs WHERE state = 'leased' AND leased_by = $1", name
    )
    return {row[0] for row in rows}


async def test_two_clusters_on_one_database_do_each_job_once_within_the_limits_of_both(
    orders: Orders, rng: random.Random
) -> None:
    jobs = await fleets.enqueue(orders.dsn, SYMBOLS, M1, START, END, bars=20)
    most = 0

    async def done() -> bool:
        nonlocal most
        most = max(most, await count(orders.dsn, "leased"))
        return await count(orders.dsn, "done") == jobs

    with fleet(replace(orders, limits={"T2": 3})) as workers:
        workers.start("a1", "a2", "b1", "b2")
        for _ in range(4):
            await until_more(workers, 1)
            name = rng.choice(workers.names())
            workers.kill(name)
            workers.start(name)
        await until(done)
        events = workers.history()
    assert most == 3
    assert len({event.process for event in events}) > 1
    await require_kept(orders.dsn, events, await synthetic(SEED, SYMBOLS, M1, START, END))
