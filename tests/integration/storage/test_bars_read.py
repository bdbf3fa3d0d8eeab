from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from cluster.errors import InputError
from cluster.market.intervals import Interval
from cluster.storage import bars
from cluster.storage.bars import STORED_BAR_SCHEMA
from cluster.storage.database import Database
from tests.integration.storage.bar_tables import NOON, bar, write

pytestmark = pytest.mark.postgres

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def eleven_minutes(database: Database) -> Database:
    """Bars from 14:00 to 14:10 inclusive; the close counts up from 10.0 by tenths."""
    start = datetime(2025, 10, 8, 14, 0, tzinfo=UTC)
    await write(
        database, *(bar(ts=start + n * MINUTE, close=10 + n / 10) for n in range(11)), bar("MSFT", start)
    )
    return database


async def test_a_read_gives_back_every_column_as_it_was_written(database: Database) -> None:
    rows = [
        bar("AAPL", source="a", volume=None, trade_count=None, aligned=False),
        bar("AAPL", NOON + MINUTE, source="a_long_name_of_a_source!"),
        bar("F", is_final=False),
    ]
    await write(database, *rows)
    found = await bars.read_many(database, ["F", "AAPL"], Interval.M1)
    assert found.schema.equals(STORED_BAR_SCHEMA)
    assert found.drop_columns(["revision", "ingested_at"]).to_pylist() == rows
    assert found["revision"].to_pylist() == [0, 0, 0]


async def test_a_range_holds_its_start_and_not_its_end(eleven_minutes: Database) -> None:
    start = datetime(2025, 10, 8, 14, 2, tzinfo=UTC)
    found = await bars.read(eleven_minutes, "AAPL", Interval.M1, start, start + 3 * MINUTE)
    assert found["close"].to_pylist() == [10.2, 10.3, 10.4]


async def test_neighbouring_ranges_share_no_bar_but_between_counts_both_ends(
    eleven_minutes: Database,
) -> None:
    """Ten minutes hold ten bars; SQL's BETWEEN also counts the one that opens at the end."""
    start, end = (datetime(2025, 10, 8, 14, minute, tzinfo=UTC) for minute in (0, 10))
    assert (await bars.read(eleven_minutes, "AAPL", Interval.M1, start, end)).num_rows == 10
    between = "SELECT count(*) FROM candles_intraday WHERE symbol = 'AAPL' AND ts BETWEEN $1 AND $2"
    assert await eleven_minutes.pool.fetchval(between, start, end) == 11


async def test_limit_keeps_the_first_bars(eleven_minutes: Database) -> None:
    found = await bars.read(eleven_minutes, "AAPL", Interval.M1, limit=2)
    assert found["close"].to_pylist() == [10.0, 10.1]


async def test_newest_keeps_the_last_bars_still_oldest_first(eleven_minutes: Database) -> None:
    found = await bars.read(eleven_minutes, "AAPL", Interval.M1, limit=2, newest=True)
    assert found["close"].to_pylist() == [10.9, 11.0]


async def test_a_symbol_that_is_named_twice_is_read_once(eleven_minutes: Database) -> None:
    found = await bars.read_many(eleven_minutes, ["MSFT", "AAPL", "MSFT"], Interval.M1)
    assert found["symbol"].to_pylist() == ["AAPL"] * 11 + ["MSFT"]


async def test_the_newest_bars_are_found_across_partitions(database: Database) -> None:
    midnight = datetime(2025, 11, 1, tzinfo=UTC)
    await write(database, *(bar(ts=midnight + n * MINUTE) for n in range(-3, 3)))
    found = await bars.opens(database, "AAPL", Interval.M1, midnight - MINUTE)
    assert found.tolist() == [(midnight + n * MINUTE).replace(tzinfo=None) for n in range(-1, 3)]
    newest = await bars.read(database, "AAPL", Interval.M1, limit=4, newest=True)
    assert newest["ts"].to_pylist() == [midnight + n * MINUTE for n in range(-1, 3)]


@pytest.mark.parametrize("symbol", ["NOPE", "'; DROP TABLE candles_intraday; --", '"', "$1", "\\"])
async def test_an_unknown_symbol_has_no_bars(eleven_minutes: Database, symbol: str) -> None:
    found = await bars.read(eleven_minutes, symbol, Interval.M1)
    assert found.schema.equals(STORED_BAR_SCHEMA)
    assert found.num_rows == 0
    assert (await bars.read(eleven_minutes, "AAPL", Interval.M1)).num_rows == 11


async def test_no_symbols_have_no_bars(database: Database) -> None:
    assert (await bars.read_many(database, [], Interval.M1)).num_rows == 0


async def test_a_range_without_a_time_zone_is_refused(database: Database) -> None:
    with pytest.raises(InputError, match="has no time zone"):
        await bars.read(database, "AAPL", Interval.M1, datetime(2025, 10, 8))  # noqa: DTZ001


async def test_daily_bars_are_read_from_their_own_table(database: Database) -> None:
    session = datetime(1999, 1, 4, 14, 30, tzinfo=UTC)
    await write(database, bar("SPX", session, interval="1d", trade_count=None), bar("SPX", session))
    found = await bars.read(database, "SPX", Interval.D1)
    assert found["interval"].to_pylist() == ["1d"]
    assert (await bars.opens(database, "SPX", Interval.D1)).tolist() == [session.replace(tzinfo=None)]


async def test_a_dsn_will_do_instead_of_a_database(eleven_minutes: Database) -> None:
    assert (await bars.opens(eleven_minutes.dsn, "MSFT", Interval.M1)).tolist() == [datetime(2025, 10, 8, 14)]  # noqa: DTZ001
    assert (await bars.read(eleven_minutes.dsn, "AAPL", Interval.M1)).num_rows == 11


async def test_opens_are_utc_microseconds(eleven_minutes: Database) -> None:
    opens = await bars.opens(eleven_minutes, "AAPL", Interval.M1, datetime(2025, 10, 8, 14, 11, tzinfo=UTC))
    assert opens.dtype == np.dtype("datetime64[us]")
    assert len(opens) == 0
