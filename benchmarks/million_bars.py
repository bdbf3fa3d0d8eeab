"""A million minute bars of 100 symbols as they arrive, and a private server to put them into."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.report import report
from cluster.market.bars import BAR_SCHEMA
from cluster.storage import bars
from cluster.storage.bars import WriteResult
from cluster.storage.database import Database
from cluster.storage.embedded.postgres import EmbeddedPostgres
from cluster.storage.migrate import migrate

SYMBOLS = [f"SYN{number:04d}" for number in range(100)]
MINUTES = 10_000
BARS = len(SYMBOLS) * MINUTES

PEER_TABLE = """
CREATE TABLE peer AS SELECT * FROM candles_intraday WITH NO DATA;
ALTER TABLE peer ADD PRIMARY KEY (symbol, interval, ts), ALTER revision SET DEFAULT 0,
    ALTER ingested_at SET DEFAULT now();
"""
"""The same columns in the same order with the same key; no partitions and no checks."""


def arriving() -> pa.Table:
    """The bars minute after minute, in each minute all symbols."""
    random = np.random.default_rng(0)
    path = 100 * np.exp(np.cumsum(random.normal(0, 0.0005, (MINUTES, len(SYMBOLS), 4)), axis=0))
    minutes = np.datetime64("2025-10-01", "us") + np.arange(MINUTES) * np.timedelta64(1, "m")
    columns = {
        "symbol": np.tile(np.array(SYMBOLS), MINUTES),
        "interval": np.full(BARS, "1m"),
        "ts": np.repeat(minutes, len(SYMBOLS)),
        "open": path[..., 0].ravel(),
        "high": path.max(axis=2).ravel(),
        "low": path.min(axis=2).ravel(),
        "close": path[..., 3].ravel(),
        "volume": random.lognormal(8, 1, BARS),
        "trade_count": random.integers(1, 1_000, BARS),
        "source": np.full(BARS, "synthetic"),
        "is_final": np.ones(BARS, dtype=bool),
        "aligned": np.ones(BARS, dtype=bool),
    }
    arrays = [_typed(columns[field.name], field.type) for field in BAR_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=BAR_SCHEMA)


def _typed(values: np.ndarray[Any, Any], type_: pa.DataType) -> pa.Array:
    return (
        pa.array(values).cast(pa.timestamp("us")).cast(type_)
        if pa.types.is_timestamp(type_)
        else pa.array(values).cast(type_)
    )


@asynccontextmanager
async def private_server() -> AsyncIterator[Database]:
    """An embedded server of its own with the shipped settings, migrated, with the table of the peer."""
    home = Path(tempfile.mkdtemp(prefix="finsight-bench-"))
    server = EmbeddedPostgres(home)
    try:
        dsn = await asyncio.to_thread(server.start)
        await asyncio.to_thread(migrate, dsn)
        database = await Database.open(dsn, statement_timeout_s=600)
        try:
            await database.pool.execute(PEER_TABLE)
            await _require_durable(database)
            yield database
        finally:
            await database.close()
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(home, ignore_errors=True)


async def _require_durable(database: Database) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        if await database.pool.fetchval("SELECT current_setting($1)", setting) != "on":
            raise SystemExit(f"{setting} is off: these numbers would not be of durable writes")


async def empty(database: Database) -> None:
    """Empty both tables, and start from a clean checkpoint."""
    await database.pool.execute("TRUNCATE candles_intraday, peer")
    await database.pool.execute("CHECKPOINT")


async def write_ours(database: Database, table: pa.Table) -> WriteResult:
    """One transaction, as a backfill does it."""
    async with database.transaction() as connection:
        return await bars.write(connection, table)


async def seconds(action: Callable[[], Awaitable[object]]) -> float:
    """How long `action` takes."""
    start = time.perf_counter()
    await action()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Outcome:
    """The measured rows per second of both sides, one value a round."""

    bench: str
    ours: list[float]
    theirs: list[float]
    goal: float
    note: str


def report_rates(measure: Callable[[], Coroutine[Any, Any, Outcome]]) -> None:
    """Run a benchmark and print its line."""
    outcome = asyncio.run(measure())
    ours, theirs = statistics.median(outcome.ours), statistics.median(outcome.theirs)
    report(
        outcome.bench,
        ours,
        theirs,
        "bars/s",
        digits=None,
        better="higher",
        goal=outcome.goal,
        note=outcome.note,
    )
