"""Backfill workers that are killed and frozen: every job ends once, the table holds the provider's bars."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
import ray

from cluster.backfill import actor
from cluster.backfill.actor import UniverseCalendar, WorkerOptions
from cluster.backfill.pool import PoolStats
from cluster.backfill.worker import Worker
from cluster.clock import SystemClock
from cluster.market.bars import BAR_SCHEMA
from cluster.market.intervals import Interval
from cluster.providers import gateway_actor
from cluster.providers.gateway import GatewayPolicy
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import bars
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Database

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("ray_cluster"),
]

M1 = Interval.M1
START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 4, 10, tzinfo=UTC)
SYMBOLS = ("SYN0001", "SYN0002", "SYN0003")
SEED = 7
LEASE_S = 3.0
WITHIN_S = 400.0
PATIENT = GatewayPolicy(timeout_s=WITHIN_S)
_KNOWN = """
INSERT INTO symbol_universe (symbol, exchange, asset_type, calendar)
SELECT symbol, 'SYNTHETIC', 'crypto', '24/7' FROM unnest($1::text[]) AS symbol
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url)
    await database.pool.execute(_KNOWN, list(SYMBOLS))
    yield database
    await database.close()


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of its own, with the actors of the test; they are gone afterwards."""
    name = f"test-{uuid.uuid4().hex}"
    yield name
    for one in (actor.actor_name(0), gateway_actor.actor_name("synthetic")):
        with suppress(ValueError):
            ray.kill(ray.get_actor(one, namespace=name), no_restart=True)


def start_worker(database_url: str, namespace: str, *, latency_s: float) -> Any:
    """A backfill actor and the gateway it asks, which takes `latency_s` for each answer."""
    options = {"seed": SEED, "latency_s": latency_s}
    gateway_actor.start("synthetic", options, PATIENT, namespace=namespace)
    how = WorkerOptions(
        database_url=database_url, providers=("synthetic",), concurrency=4, lease_s=LEASE_S, poll_s=0.1
    )
    return actor.start(0, how, namespace=namespace)


def process_id(worker: Any) -> int:
    pid: int = ray.get(worker.__ray_call__.remote(lambda _: os.getpid()), timeout=WITHIN_S)
    return pid


async def count(database: Database, state: str) -> int:
    found: int = await database.pool.fetchval("SELECT count(*) FROM backfill_jobs WHERE state = $1", state)
    return found


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that other processes bring about."""
    async with asyncio.timeout(WITHIN_S):
        while not await condition():  # noqa: ASYNC110 - no event crosses the process boundary
            await asyncio.sleep(0.02)


async def until_working(database: Database, *, done: int) -> None:
    """Until jobs run and at least `done` have finished."""

    async def working() -> bool:
        return await count(database, "done") >= done and await count(database, "leased") > 0

    await until(working)


async def provided(symbol: str) -> pa.Table:
    return await SyntheticProvider(seed=SEED).bars(symbol, M1, START, END)


async def stored(database: Database, symbol: str) -> pa.Table:
    table = await bars.read(database, symbol, M1)
    assert len(table["revision"].unique()) <= 1  # no bar was written a second time with other values
    return table.select(BAR_SCHEMA.names)


async def test_a_worker_killed_in_the_middle_leaves_the_provider_s_bars_and_no_job_behind(
    database: Database, database_url: str, namespace: str
) -> None:
    queue = BackfillQueue(database, longest_bars=20)
    for symbol in SYMBOLS:
        assert len(await queue.enqueue(symbol, M1, START, END)) == 30
    worker = start_worker(database_url, namespace, latency_s=0.1)
    for done in (4, 20, 40):
        await until_working(database, done=done)
        os.kill(process_id(worker), signal.SIGKILL)

    async def all_done() -> bool:
        return await count(database, "done") == 90

    await until(all_done)
    for symbol in SYMBOLS:
        assert (await stored(database, symbol)).equals((await provided(symbol)).cast(BAR_SCHEMA))
    ended = await database.pool.fetch("SELECT outcome, count(*) AS n FROM backfill_attempts GROUP BY outcome")
    outcomes = {row["outcome"]: row["n"] for row in ended}
    assert outcomes.pop("done") == 90
    assert outcomes["lease_expired"] >= 1
    assert set(outcomes) == {"lease_expired"}
    await actor.drain([worker])


async def test_a_worker_frozen_past_its_lease_writes_nothing_afterwards(
    database: Database, database_url: str, namespace: str
) -> None:
    queue = BackfillQueue(database)
    (job,) = await queue.enqueue(SYMBOLS[0], M1, START, END)
    worker = start_worker(database_url, namespace, latency_s=1.0)
    pid = process_id(worker)
    await until_working(database, done=0)
    os.kill(pid, signal.SIGSTOP)
    try:
        heir = await heir_of(queue)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (heir.id, heir.attempt) == (job.id, 2)

    async def has_given_up() -> bool:
        stats: PoolStats = await asyncio.wait_for(worker.stats.remote(), WITHIN_S)
        return stats.finished == {"T2/lease_lost": 1}

    await until(has_given_up)
    assert (await stored(database, SYMBOLS[0])).num_rows == 0
    sources = {"synthetic": SyntheticSource()}
    result = await Worker(queue, sources, UniverseCalendar(database), SystemClock()).run(heir)
    assert result == "done"
    assert (await stored(database, SYMBOLS[0])).equals((await provided(SYMBOLS[0])).cast(BAR_SCHEMA))
    assert [one.outcome for one in await queue.attempts(job.id)] == ["lease_expired", "done"]


class SyntheticSource:
    """The provider without a gateway."""

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        return await SyntheticProvider(seed=SEED).bars(symbol, interval, start, end)


async def heir_of(queue: BackfillQueue) -> Lease:
    """Claim like another worker, until the frozen one's lease has run out."""
    leases: list[Lease] = []

    async def claimed() -> bool:
        leases.extend(await queue.claim("heir", 1))
        return bool(leases)

    await until(claimed)
    return leases[0]
