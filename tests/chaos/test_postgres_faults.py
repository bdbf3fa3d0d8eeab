"""PostgreSQL crashes, drops its connections, refuses to write or has no room: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from cluster.clock import SystemClock
from cluster.errors import StorageError
from cluster.ingest.cadence import Cadence
from cluster.ingest.collector import Collector
from cluster.ingest.sweep import Sweeper
from cluster.market.intervals import Interval
from cluster.providers.gateway import Gateway
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import sweeps, universe
from cluster.storage.database import Database
from cluster.storage.embedded.postgres import EmbeddedPostgres
from cluster.storage.embedded.process import own_by_server_user
from cluster.storage.migrate import migrate
from cluster.storage.sweeps import Sweep
from tests.chaos import fleet as fleets
from tests.chaos.disk import disk, filled, needs_mount
from tests.chaos.fleet import (
    Fleet,
    acknowledged,
    fleet,
    outcomes,
    query,
    reading,
    require_kept,
    synthetic,
    until,
    until_acknowledged,
    until_done,
)
from tests.chaos.worker_process import Orders

pytestmark = [pytest.mark.chaos, pytest.mark.postgres, pytest.mark.slow]

M1 = Interval.M1
START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 4, 12, tzinfo=UTC)
SYMBOLS = ("SYN0001", "SYN0002")
SEED = 11
PROVIDERS = {"synthetic": {"seed": SEED, "latency_s": 0.05}}


@pytest.fixture
def orders(frail_url: str, tmp_path: Path) -> Orders:
    return Orders(
        "", frail_url, fleets.log_folder(tmp_path), PROVIDERS, lease_s=1.0, concurrency=2, commit_pause_s=0.05
    )


@asynccontextmanager
async def work(orders: Orders) -> AsyncIterator[Fleet]:
    """Two workers at work and somebody who reads; at the end all is done, and as it should be."""
    jobs = await fleets.enqueue(orders.dsn, SYMBOLS, M1, START, END, bars=20)
    assert jobs == 72
    with fleet(orders) as workers:
        workers.start("one", "two")
        async with reading(orders.dsn, orders.folder, SYMBOLS):
            await until_acknowledged(workers)
            yield workers
            await until_done(orders.dsn, jobs)
        events = workers.history()
    await require_kept(orders.dsn, events, await synthetic(SEED, SYMBOLS, M1, START, END))


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGKILL])
async def test_a_crash_of_the_server_loses_no_acknowledged_bar(
    orders: Orders, frail_postgres: EmbeddedPostgres, number: signal.Signals
) -> None:
    port = urlsplit(orders.dsn).port
    assert port is not None
    async with work(orders) as workers:
        for _ in range(2):
            server = psutil.Process(postmaster(frail_postgres))
            server.send_signal(number)
            await fleets.until_ended(server, port)
            await asyncio.to_thread(frail_postgres.start)
            await until_acknowledged(workers)


def postmaster(server: EmbeddedPostgres) -> int:
    """Number of the server's first process."""
    return int((server._data / "postmaster.pid").read_text().split()[0])


async def test_connections_cut_at_random_moments_lose_and_repeat_nothing(
    orders: Orders, rng: random.Random
) -> None:
    async with work(orders) as workers:
        for _ in range(8):
            await query(orders.dsn, _CUT)
            await until_acknowledged(workers)
            await asyncio.sleep(rng.uniform(0.0, 0.1))


_CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


async def test_work_waits_for_a_server_that_has_no_connection_left(orders: Orders) -> None:
    api = await Database.open(orders.dsn)
    async with work(orders) as workers, collector(orders.dsn) as looks:
        async with exhausted(orders.dsn):
            await until_stalled(workers)
            with pytest.raises(StorageError):  # answered with 503
                await universe.get(api, SYMBOLS[0])
        before = await looks()

        async def goes_on() -> bool:
            return await looks() > before and await universe.get(api, SYMBOLS[0]) is not None

        await until(goes_on)
    await api.close()
    assert await failures(orders.dsn) == 0


@asynccontextmanager
async def exhausted(dsn: str) -> AsyncIterator[None]:
    """Others have taken all connections, and take each one that gets free."""
    others: list[asyncpg.Connection[asyncpg.Record]] = []

    async def take() -> None:
        while True:
            try:
                others.append(await asyncpg.connect(dsn))
            except asyncpg.TooManyConnectionsError:
                await others[0].execute(_CUT_OURS)
                await asyncio.sleep(0.01)

    taking = asyncio.create_task(take())
    try:
        yield
        assert not taking.done()
    finally:
        taking.cancel()
        await asyncio.wait([taking])
        for each in others:
            each.terminate()


_CUT_OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'finsight%'"


@asynccontextmanager
async def collector(dsn: str) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Somebody collects a symbol of its own every second; answers how often that went well."""
    await query(dsn, _LIVE)
    database, clock = await Database.open(dsn), SystemClock()
    sweeper = Sweeper(database, {"synthetic": Gateway(SyntheticProvider(seed=SEED), clock)}, clock)
    done: list[Sweep] = []

    async def record(sweep: Sweep) -> None:
        await sweeps.record(database, sweep)
        done.append(sweep)

    async def looks() -> int:
        return len(done)

    one = Collector(sweeper, record, [Cadence("T0", M1, 1.0)], clock)
    running = asyncio.create_task(one.run())
    yield looks
    one.end()
    await running
    await database.close()
    # The rest of the table is compared with what the workers were asked for.
    assert await query(dsn, "DELETE FROM candles_intraday WHERE symbol = 'SYN0900' RETURNING ts")


_LIVE = """
INSERT INTO symbol_universe (symbol, exchange, asset_type, calendar, tier)
VALUES ('SYN0900', 'SYNTHETIC', 'crypto', '24/7', 'T0')
"""


async def test_work_waits_for_a_server_that_has_become_read_only(orders: Orders) -> None:
    async with work(orders) as workers:
        await query(orders.dsn, "ALTER SYSTEM SET default_transaction_read_only = on")
        try:
            await query(orders.dsn, "SELECT pg_reload_conf()")
            await until_stalled(workers)
        finally:
            await query(orders.dsn, "ALTER SYSTEM RESET default_transaction_read_only")
            await query(orders.dsn, "SELECT pg_reload_conf()")
    assert await failures(orders.dsn) == 0


async def failures(dsn: str) -> int:
    """Attempts that were held against a job. Not those whose lease ended, as it may on a busy machine."""
    return (await outcomes(dsn)).get("failed", 0)


async def test_work_waits_for_a_table_that_somebody_has_locked(orders: Orders) -> None:
    async with work(orders) as workers:
        holder = await asyncpg.connect(orders.dsn)
        async with holder.transaction():
            await holder.execute("LOCK TABLE candles_intraday IN ACCESS EXCLUSIVE MODE")
            await until_stalled(workers)
        await holder.close()
    assert await failures(orders.dsn) == 0


async def until_stalled(workers: Fleet) -> None:
    """Until no write was acknowledged for a lease."""

    async def none() -> bool:
        before = acknowledged(workers.history())
        await asyncio.sleep(workers.orders.lease_s)
        return acknowledged(workers.history()) == before

    await until(none)


@needs_mount
async def test_work_waits_for_a_full_disk_of_bars(orders: Orders) -> None:
    with disk(16) as folder:
        own_by_server_user(folder)
        await query(orders.dsn, f"CREATE TABLESPACE small LOCATION '{folder}'")
        await query(orders.dsn, _ON_SMALL_DISK)
        async with work(orders) as workers:
            with filled(folder):
                await until_stalled(workers)
        assert await failures(orders.dsn) == 0
        await query(orders.dsn, "DROP TABLE candles_intraday, candles_daily CASCADE")
        await query(orders.dsn, "DROP TABLESPACE small")


_ON_SMALL_DISK = """
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_tablespace = small', current_database()); END $$
"""


@needs_mount
async def test_a_server_that_cannot_write_its_log_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with disk(400) as folder:
        folder.chmod(0o755)
        server = EmbeddedPostgres(folder)
        try:
            await without_room_for_its_log(server, folder, fleets.log_folder(tmp_path))
        finally:
            server.stop()


async def without_room_for_its_log(server: EmbeddedPostgres, folder: Path, history: Path) -> None:
    dsn = await asyncio.to_thread(server.start)
    await asyncio.to_thread(migrate, dsn)
    orders = Orders("", dsn, history, PROVIDERS, lease_s=1.0, concurrency=2, commit_pause_s=0.05)
    async with work(orders) as workers:
        with filled(folder):
            with suppress(asyncpg.PostgresError, OSError):  # the server does not survive it
                for _ in range(8):
                    await query(dsn, "SELECT pg_switch_wal(), pg_logical_emit_message(true, '', 'x')")
            await until_stalled(workers)
        await asyncio.to_thread(server.start)
    assert await failures(dsn) == 0
