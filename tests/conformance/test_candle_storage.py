"""What holds of stored bars, with native partitions as with TimescaleDB."""

from __future__ import annotations

import asyncio

import asyncpg
import numpy as np
import pytest

from cluster.errors import StorageError
from cluster.market.intervals import Interval
from cluster.storage import bars, retention, rollups
from cluster.storage.bars import WriteResult
from cluster.storage.database import Database
from tests.conformance.candle_tables import MINUTE, NOW, OLD, minute, minutes, rows, settle
from tests.integration.storage.bar_tables import bar, table, write

pytestmark = pytest.mark.postgres


async def test_the_storage_is_the_one_that_is_asked_for(database: Database, storage: str) -> None:
    assert await rollups.storage(database) == storage


async def test_the_rows_of_a_statement_and_of_a_day_are_counted(database: Database) -> None:
    await write(database, *minutes(OLD, 20))
    await settle(database)
    counted = await rows(
        database,
        "SELECT count(*) FROM candles_intraday WHERE symbol='AAPL' AND interval='1m' "
        "AND ts BETWEEN '2025-10-08 14:00:00' AND '2025-10-08 14:10:00'",
    )
    assert counted == [(11,)]
    assert await rows(database, "SELECT max(timestamp), count(*) FROM market_data") == [
        (OLD + 19 * MINUTE, 20)
    ]


async def test_late_bars_change_what_is_compressed_and_nothing_else(database: Database) -> None:
    await write(database, *minutes(OLD, 30))
    await settle(database)
    late = [minute(OLD + 5 * MINUTE, 11.0), minute(OLD + 6 * MINUTE), *minutes(OLD + 30 * MINUTE, 5)]
    assert await write(database, *late) == WriteResult(inserted=5, revised=1, unchanged=1)
    await settle(database)
    assert await write(database, *late) == WriteResult(unchanged=7)
    stored = await bars.read(database, "AAPL", Interval.M1)
    expected = minutes(OLD, 35)
    expected[5] = minute(OLD + 5 * MINUTE, 11.0)
    assert stored.select(table().schema.names).to_pylist() == expected
    assert np.flatnonzero(stored["revision"].to_numpy()).tolist() == [5]


async def test_an_upsert_by_hand_works_on_what_is_compressed(database: Database) -> None:
    await write(database, *minutes(OLD, 3))
    await settle(database)
    await database.pool.execute(
        "INSERT INTO candles_intraday (symbol, interval, ts, open, high, low, close, volume, source) "
        "SELECT 'AAPL', '1m', ts, 5, 5, 5, 5, 1, 'hand' "
        "FROM generate_series($1::timestamptz, $2, '1 minute') AS ts "
        "ON CONFLICT (symbol, interval, ts) DO UPDATE SET close = EXCLUDED.close, low = EXCLUDED.low",
        OLD + 2 * MINUTE,
        OLD + 3 * MINUTE,
    )
    stored = await rows(database, "SELECT ts, close, source FROM candles_intraday ORDER BY ts")
    assert stored[2:] == [(OLD + 2 * MINUTE, 5.0, "synthetic"), (OLD + 3 * MINUTE, 5.0, "hand")]


async def test_writers_at_once_leave_each_compressed_bar_once_with_the_last_values(
    database: Database,
) -> None:
    await write(database, *minutes(OLD, 60), *minutes(OLD, 60, symbol="MSFT"))
    await settle(database)

    async def writer(number: int) -> WriteResult:
        start = OLD + 10 * number * MINUTE
        mine = [*minutes(start, 40, price=20.0), *minutes(start, 40, price=20.0, symbol="MSFT")]
        return await write(database, *mine)

    results = await asyncio.gather(*(writer(number) for number in range(6)))
    total = sum(results, WriteResult())
    assert (total.inserted, total.revised, total.unchanged) == (2 * 30, 2 * 60, 2 * (6 * 40 - 90))
    await settle(database)
    for symbol in ("AAPL", "MSFT"):
        stored = await bars.read(database, symbol, Interval.M1)
        assert stored["ts"].to_pylist() == [OLD + place * MINUTE for place in range(90)]
        assert set(stored["close"].to_pylist()) == {20.0}


async def test_writers_and_compression_at_once_lose_nothing(database: Database) -> None:
    await write(database, *minutes(OLD, 30))

    async def writer(number: int) -> WriteResult:
        return await write(database, *minutes(OLD + 30 * (number + 1) * MINUTE, 30))

    compress = retention.compress(database, retention.horizon(NOW, 14))
    await asyncio.gather(compress, *(writer(number) for number in range(5)), settle(database))
    await settle(database)
    stored = await bars.read(database, "AAPL", Interval.M1)
    assert stored["ts"].to_pylist() == [OLD + place * MINUTE for place in range(180)]


async def test_a_program_that_takes_no_locks_makes_no_second_bar(database: Database) -> None:
    await write(database, *minutes(OLD, 3))
    await settle(database)
    insert = (
        "INSERT INTO candles_intraday (symbol, interval, ts, open, high, low, close, source) "
        "VALUES ('AAPL', '1m', $1, 5, 5, 5, 5, 'hand')"
    )
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.pool.execute(insert, OLD + MINUTE)
    assert await rows(database, "SELECT count(*), max(close) FROM candles_intraday") == [(3, 10.0)]


async def test_a_bar_that_does_not_arrive_in_a_compressed_chunk_fails_the_write(
    database: Database, storage: str
) -> None:
    """As TimescaleDB has lost bars before: here a trigger does."""
    if storage == "native":
        pytest.skip("native storage has no compressed chunks")
    await write(database, *minutes(OLD, 3))
    await settle(database)
    await database.pool.execute(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    await database.pool.execute(
        "CREATE TRIGGER lose BEFORE INSERT ON candles_intraday FOR EACH ROW EXECUTE FUNCTION lose()"
    )
    try:
        with pytest.raises(StorageError, match="0 bars are stored where 2 should be, 2 are missing"):
            await write(database, *minutes(OLD + 3 * MINUTE, 2))
    finally:
        await database.pool.execute("DROP FUNCTION lose CASCADE")


async def test_deleted_bars_are_noted_for_the_search_for_gaps(database: Database) -> None:
    await write(database, *minutes(OLD, 60), bar(ts=OLD, interval="1d"))
    await settle(database)
    await database.pool.execute(
        "DELETE FROM candles_intraday WHERE ts BETWEEN $1 AND $2", OLD, OLD + 10 * MINUTE
    )
    await database.pool.execute("DELETE FROM candles_daily")
    noted = await rows(
        database,
        "SELECT interval, symbol, min(start_ts) <= $1, max(end_ts) > $1 FROM gap_dirty_ranges GROUP BY 1, 2",
        OLD,
    )
    assert sorted(noted) == [("1d", "AAPL", True, True), ("1m", "AAPL", True, True)]
    assert len(await rows(database, "SELECT * FROM gap_dirty_ranges")) == 2


async def test_bars_that_a_change_takes_away_are_noted_for_the_search_for_gaps(database: Database) -> None:
    await write(database, *minutes(OLD, 60), bar(ts=OLD, interval="1d"))
    await settle(database)
    await database.pool.execute("UPDATE candles_intraday SET volume = 7")
    assert await rows(database, "SELECT * FROM gap_dirty_ranges") == []
    at = OLD + 10 * MINUTE
    await database.pool.execute("UPDATE candles_intraday SET is_final = false WHERE ts = $1", at)
    await database.pool.execute("UPDATE candles_daily SET symbol = 'OTHER'")
    noted = await rows(
        database,
        "SELECT interval, symbol, start_ts <= CASE interval WHEN '1m' THEN $1 ELSE $2::timestamptz END, "
        "end_ts > CASE interval WHEN '1m' THEN $1 ELSE $2 END FROM gap_dirty_ranges",
        at, OLD,
    )  # fmt: skip
    assert sorted(noted) == [("1d", "AAPL", True, True), ("1m", "AAPL", True, True)]
