"""The Valkey behind a shared budget is killed and flushed: nothing beyond the limit, no attempt lost."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from cluster.market.intervals import Interval
from cluster.ports import free_port
from cluster.providers.budget import Window
from cluster.providers.gateway import GatewayPolicy
from cluster.storage.embedded.valkey import EmbeddedValkey
from tests.chaos import fleet as fleets
from tests.chaos.fleet import fleet, query, require_kept, synthetic, until, until_acknowledged, until_done
from tests.chaos.worker_process import Orders

pytestmark = [pytest.mark.chaos, pytest.mark.postgres, pytest.mark.valkey, pytest.mark.slow]

M1 = Interval.M1
START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 4, 8, tzinfo=UTC)
SYMBOLS = ("SYN0001",)
SEED = 19
PROVIDERS = {"synthetic": {"seed": SEED, "latency_s": 0.05}}
LIMIT = 10
_WAITING = """
SELECT count(*) FILTER (WHERE state = 'ready' AND run_at > clock_timestamp()), count(*)
FROM backfill_jobs WHERE state <> 'done'
"""

_SPENT = "SELECT 1 FROM backfill_attempts WHERE started_at > $1 AND message LIKE '%is used up until%'"


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    home = Path(tempfile.mkdtemp(prefix="finsight frail "))
    server = EmbeddedValkey(home, port=free_port())
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


def sharing(dsn: str, folder: Path, valkey: EmbeddedValkey, window: Window) -> Orders:
    """For workers of two clusters that share one budget."""
    policy = GatewayPolicy(budget=(window,), patience_s=0.2)
    return Orders("", dsn, fleets.log_folder(folder), PROVIDERS, policy, valkey.url(), concurrency=2)


async def crash(valkey: EmbeddedValkey) -> None:
    """`kill -9`."""
    process = psutil.Process(int((valkey._folder / "valkey.pid").read_text()))
    process.kill()
    await fleets.until_ended(process, int((valkey._folder / "port").read_text()))


async def until_refused(dsn: str) -> None:
    """Until all work waits for the budget, and nothing is running."""

    async def all_wait() -> bool:
        ((waiting, left),) = await query(dsn, _WAITING)
        return bool(waiting == left)

    await until(all_wait)


async def try_again(dsn: str) -> None:
    """Have all that waits ask for the budget, until it was the budget that refused it once more."""
    since = (await query(dsn, "SELECT clock_timestamp()"))[0][0]

    async def spent() -> bool:
        await query(dsn, "DELETE FROM backfill_pauses")
        await query(dsn, "UPDATE backfill_jobs SET run_at = clock_timestamp() WHERE state = 'ready'")
        await until_refused(dsn)
        return bool(await query(dsn, _SPENT, since))

    await until(spent)


async def test_a_budget_that_is_spent_stays_spent_through_a_kill_and_a_flush(
    database_url: str, tmp_path: Path, valkey: EmbeddedValkey
) -> None:
    await fleets.enqueue(database_url, SYMBOLS, M1, START, END, bars=10)
    orders = sharing(database_url, tmp_path, valkey, Window(limit=LIMIT, seconds=3_600))
    with fleet(orders) as workers:
        workers.start("a", "b")
        await until_refused(database_url)
        assert await fleets.count(database_url, "done") == LIMIT
        await crash(valkey)
        await asyncio.to_thread(valkey.start)
        await try_again(database_url)
        async with Redis.from_url(valkey.url()) as client:
            await client.flushall()
        await try_again(database_url)
    assert await fleets.count(database_url, "done") == LIMIT
    assert set(await fleets.outcomes(database_url)) == {"done", "snoozed"}


async def test_while_the_shared_budget_is_away_work_waits_without_using_an_attempt(
    database_url: str, tmp_path: Path, valkey: EmbeddedValkey
) -> None:
    jobs = await fleets.enqueue(database_url, SYMBOLS, M1, START, END, bars=20)
    orders = sharing(database_url, tmp_path, valkey, Window(limit=1_000, seconds=1))
    with fleet(orders) as workers:
        workers.start("a", "b")
        await until_acknowledged(workers)
        await crash(valkey)
        await until_refused(database_url)
        assert await fleets.count(database_url, "done") < jobs
        await asyncio.to_thread(valkey.start)
        await until_done(database_url, jobs)
        events = workers.history()
    await require_kept(database_url, events, await synthetic(SEED, SYMBOLS, M1, START, END))
    assert {row[0] for row in await query(database_url, "SELECT attempt FROM backfill_jobs")} == {1}
