"""What is still to be done, by what a real database holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cluster.local import due
from cluster.market.bars import from_columns
from cluster.market.intervals import Interval
from cluster.storage import bars
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from training.features import MIN_BARS

pytestmark = pytest.mark.postgres


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, max_size=1)
    yield opened
    await opened.close()


async def store(database: Database, query: str, *arguments: object) -> None:
    async with database.connection() as connection:
        await connection.execute(query, *arguments)


async def store_bars(database: Database, count: int) -> None:
    ts = np.datetime64("2020-01-01", "us") + np.arange(count) * np.timedelta64(1, "D")
    ones = np.ones(count)
    table = from_columns("SPX", Interval.D1, ts, ones, ones, ones, ones, ones, source="sample")
    async with database.transaction() as connection:
        await bars.write(connection, table)


async def symbol(database: Database, name: str = "SPX") -> None:
    await store(
        database,
        "INSERT INTO symbol_universe (symbol, exchange, asset_type, tier, active) "
        "VALUES ($1, 'INDEX', 'index', 'T1', true)",
        name,
    )


def test_the_bars_that_features_need_are_those_that_training_says() -> None:
    assert due.FEATURE_BARS == MIN_BARS


async def test_an_empty_database_needs_history_but_no_features(database: Database) -> None:
    assert await due.history(database)
    assert not await due.features(database)
    assert await due.predictable(database) is None


async def test_stored_bars_need_features_and_no_history(database: Database) -> None:
    await symbol(database)
    await store_bars(database, 512)

    assert not await due.history(database)
    assert await due.features(database)
    assert await due.predictable(database) == "SPX"


async def test_too_few_bars_need_nothing_more(database: Database) -> None:
    await symbol(database)
    await store_bars(database, 511)

    assert not await due.features(database)
    assert await due.predictable(database) is None


async def test_features_of_the_last_bar_end_the_need(database: Database) -> None:
    await symbol(database)
    await store_bars(database, 512)
    await store(
        database,
        "INSERT INTO feature_engineered_data (symbol, interval, timestamp, feature_set) "
        "SELECT symbol, interval, ts, 'any' FROM candles_daily",
    )
    assert not await due.features(database)

    await store(
        database, "DELETE FROM feature_engineered_data WHERE timestamp > $1", datetime(2021, 5, 1, tzinfo=UTC)
    )
    assert await due.features(database)


async def test_a_job_that_waits_is_history_still_to_come(database: Database) -> None:
    await symbol(database)
    await store_bars(database, 512)
    start = datetime(2019, 1, 1, tzinfo=UTC)
    await BackfillQueue(database).enqueue("SPX", Interval.D1, start, start + timedelta(days=9))

    assert await due.history(database)
