"""What holds of stored bars and their rollups, with native partitions as with TimescaleDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.clock import SystemClock
from cluster.errors import StorageError
from cluster.market.intervals import Interval
from cluster.storage import bars, retention, rollups, session_hours, upkeep
from cluster.storage.bars import WriteResult
from cluster.storage.database import Database
from tests.conformance import rollup_reference as reference
from tests.conformance.candle_servers import STORAGES, fresh, server
from tests.integration.storage.bar_tables import bar, table, write

pytestmark = pytest.mark.postgres

MINUTE = timedelta(minutes=1)
NOW = datetime(2025, 12, 10, 12, 0, tzinfo=UTC)
OLD = datetime(2025, 10, 8, 14, 0, tzinfo=UTC)
"""Of a day that is compressed by now."""
OHLCV = "symbol, ts, open, high, low, close, volume, trade_count, minutes"


@pytest.fixture(scope="module", params=STORAGES)
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def dsn(storage: str, postgres_dsn: str) -> Iterator[str]:
    with fresh(server(storage, postgres_dsn), "auto") as made:
        yield made


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    opened = await Database.open(dsn, max_size=6)
    await empty(opened)
    yield opened
    await opened.close()


async def empty(database: Database) -> None:
    """As after the migration, whatever a test did."""
    await database.pool.execute("TRUNCATE candles_intraday, candles_daily")
    await database.pool.execute("DELETE FROM rollup_dirty WHERE symbol IS NOT NULL")
    await database.pool.execute("UPDATE rollup_state SET kept_from = '-infinity'")
    await rollups.refresh(database, NOW)
    await database.pool.execute("DELETE FROM symbol_universe; DELETE FROM gap_dirty_ranges")


async def rows(database: Database, query: str, *arguments: object) -> Sequence[tuple[Any, ...]]:
    return [tuple(row) for row in await database.pool.fetch(query, *arguments)]


async def rolled(database: Database, view: str, columns: str = OHLCV) -> Sequence[tuple[Any, ...]]:
    return await rows(database, f"SELECT {columns} FROM {view} ORDER BY symbol, ts")


def minute(ts: datetime, price: float = 10.0, volume: float | None = 100.0, **changes: Any) -> dict[str, Any]:
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    return bar(ts=ts, volume=volume, **{**prices, **changes})


def minutes(start: datetime, count: int, **changes: Any) -> list[dict[str, Any]]:
    return [minute(start + place * MINUTE, **changes) for place in range(count)]


async def add(database: Database, symbol: str, calendar: str) -> None:
    await database.pool.execute(
        "INSERT INTO symbol_universe (symbol, exchange, asset_type, calendar) VALUES ($1, '', 'equity', $2)",
        symbol,
        calendar,
    )


async def settle(database: Database) -> None:
    """Rollups kept and old chunks compressed, as after a while."""
    await rollups.refresh(database, NOW)
    await retention.compress(database, retention.horizon(NOW, 14))


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


async def test_five_minutes_of_bars_are_one_bar(database: Database) -> None:
    prices = [10.0, 12.0, 8.0, 9.0, 11.0]
    five = [minute(OLD + place * MINUTE, price, volume=2.0) for place, price in enumerate(prices)]
    await write(database, *five, minute(OLD + 5 * MINUTE, 11.5, volume=None, trade_count=None))
    expected = [
        ("AAPL", OLD, 10.0, 12.0, 8.0, 11.0, 10.0, 35, 5),
        ("AAPL", OLD + 5 * MINUTE, 11.5, 11.5, 11.5, 11.5, None, None, 1),
    ]
    await settle(database)
    assert await rolled(database, "candles_5m") == expected
    assert await rolled(database, "candles_1h") == [("AAPL", OLD, 10.0, 12.0, 8.0, 11.5, 10.0, 35, 6)]


async def test_bars_of_today_are_rolled_up_when_asked_for(database: Database) -> None:
    await settle(database)
    today = NOW.replace(hour=1)
    await write(database, *minutes(today, 7, volume=2.0))
    found = await rolled(database, "candles_5m", "ts, volume, minutes")
    assert found == [(today, 10.0, 5), (today + 5 * MINUTE, 4.0, 2)]


@pytest.mark.parametrize(
    ("day", "opens", "last", "its_minutes"),
    [
        ("2025-01-15", "14:30", "20:30", 30),  # winter
        ("2025-07-15", "13:30", "19:30", 30),  # summer
        ("2025-07-03", "13:30", "16:30", 30),  # closes at 13:00 of New York
    ],
)
async def test_hours_of_new_york_begin_with_the_session(
    database: Database, day: str, opens: str, last: str, its_minutes: int
) -> None:
    await add(database, "AAPL", "XNYS")
    await session_hours.align(database, NOW)
    start = datetime.fromisoformat(f"{day}T{opens}+00:00")
    end = datetime.fromisoformat(f"{day}T{last}+00:00") + its_minutes * MINUTE
    await write(database, *minutes(start, (end - start) // MINUTE, volume=1.0))
    await settle(database)
    hours = await rolled(database, "candles_1h", "ts, volume")
    expected = [(start + number * 60 * MINUTE, 60.0) for number in range(len(hours) - 1)]
    assert hours == [*expected, (end - its_minutes * MINUTE, float(its_minutes))]


async def test_minutes_outside_of_the_session_get_hours_of_their_own(database: Database) -> None:
    await add(database, "AAPL", "XNYS")
    await session_hours.align(database, NOW)
    day = datetime(2025, 1, 15, tzinfo=UTC)
    early, late = day + timedelta(hours=14), day + timedelta(hours=20, minutes=50)
    await write(database, *minutes(early, 60, volume=1.0), *minutes(late, 20, volume=1.0))
    await settle(database)
    assert await rolled(database, "candles_1h", "ts, volume") == [
        (early, 30.0),  # before the session
        (early + 30 * MINUTE, 30.0),
        (late - 20 * MINUTE, 10.0),
        (late + 10 * MINUTE, 10.0),  # after it
    ]


async def test_the_hours_of_tokyo_begin_anew_after_lunch(database: Database) -> None:
    await add(database, "7203", "XTKS")
    await session_hours.align(database, NOW)
    day = datetime(2025, 1, 15, tzinfo=UTC)
    morning = minutes(day, 150, symbol="7203", volume=1.0)
    afternoon = minutes(day + timedelta(hours=3, minutes=30), 60, symbol="7203", volume=1.0)
    await write(database, *morning, *afternoon)
    await settle(database)
    hours = await rolled(database, "candles_1h", "ts, volume")
    assert [(f"{ts:%H:%M}", volume) for ts, volume in hours] == [
        ("00:00", 60.0),
        ("01:00", 60.0),
        ("02:00", 30.0),
        ("03:30", 60.0),
    ]


async def test_a_calendar_that_nobody_knows_or_that_began_late_stops_no_other(database: Database) -> None:
    await add(database, "AAPL", "XNYS")
    await add(database, "2222", "XSAU")  # known from 2021 on
    await add(database, "NOBODY", "XNYZ")
    await session_hours.align(database, NOW)
    found = await rows(database, "SELECT calendar, min(day)::text FROM session_cuts GROUP BY 1 ORDER BY 1")
    assert [each for each in found if each[0] in {"XNYS", "XSAU", "XNYZ"}] == [
        ("XNYS", "2000-01-03"),
        ("XSAU", "2021-01-03"),
    ]


async def test_another_calendar_makes_other_hours(database: Database) -> None:
    start = datetime(2025, 1, 15, 14, 30, tzinfo=UTC)
    await add(database, "AAPL", "24/7")
    await write(database, *minutes(start, 60, volume=1.0))
    await settle(database)
    assert await rolled(database, "candles_1h", "ts, volume") == [
        (start - 30 * MINUTE, 30.0),
        (start + 30 * MINUTE, 30.0),
    ]
    await database.pool.execute("UPDATE symbol_universe SET calendar = 'XNYS'")
    await session_hours.align(database, NOW)
    await rollups.refresh(database, NOW)
    assert await rolled(database, "candles_1h", "ts, volume") == [(start, 60.0)]


async def test_a_session_that_is_changed_afterwards_moves_its_hours(database: Database) -> None:
    await add(database, "AAPL", "XNYS")
    await session_hours.align(database, NOW)
    start = datetime(2025, 1, 15, 14, 30, tzinfo=UTC)
    await write(database, *minutes(start, 60, volume=1.0))
    await settle(database)
    later = start + 15 * MINUTE
    await database.pool.execute(
        "UPDATE session_cuts SET cuts = array_replace(cuts, $1, $2) WHERE day = '2025-01-15'", start, later
    )
    await rollups.refresh(database, NOW)
    assert await rolled(database, "candles_1h", "ts, volume") == [
        (start - 30 * MINUTE, 15.0),
        (later, 45.0),
    ]


async def test_late_revised_and_deleted_minutes_change_the_rollups_they_are_in(database: Database) -> None:
    await write(database, *minutes(OLD, 120, volume=1.0))
    await settle(database)
    await write(database, minute(OLD + 7 * MINUTE, 30.0, volume=5.0), minute(OLD - 3 * MINUTE, volume=2.0))
    await database.pool.execute(
        "DELETE FROM candles_intraday WHERE ts >= $1 AND ts < $2", OLD + 60 * MINUTE, OLD + 118 * MINUTE
    )
    await settle(database)
    fives = await rolled(database, "candles_5m", "ts, high, volume")
    assert fives[:3] == [
        (OLD - 5 * MINUTE, 10.0, 2.0),
        (OLD, 10.0, 5.0),
        (OLD + 5 * MINUTE, 30.0, 9.0),
    ]
    assert fives[-1] == (OLD + 115 * MINUTE, 10.0, 2.0)
    assert len(fives) == 1 + 12 + 1
    hours = await rolled(database, "candles_1h", "ts, high, volume")
    hour = 60 * MINUTE
    assert hours == [(OLD - hour, 10.0, 2.0), (OLD, 30.0, 64.0), (OLD + hour, 10.0, 2.0)]


async def test_without_minutes_there_are_no_rollups(database: Database) -> None:
    await write(database, *minutes(OLD, 10), *minutes(OLD, 10, symbol="MSFT"))
    await settle(database)
    await database.pool.execute("DELETE FROM candles_intraday WHERE symbol = 'AAPL'")
    await rollups.refresh(database, NOW)
    assert await rolled(database, "candles_1h", "symbol") == [("MSFT",)]
    await database.pool.execute("TRUNCATE candles_intraday")
    await rollups.refresh(database, NOW)
    assert await rolled(database, "candles_5m", "symbol") == []
    assert await rolled(database, "candles_1h", "symbol") == []


async def test_a_rollup_that_may_still_grow_is_not_final(database: Database) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    hour = now.replace(minute=0)
    await write(database, *minutes(hour - 60 * MINUTE, 60), minute(hour - 125 * MINUTE, is_final=False))
    await write(database, minute(now))
    hours = await rolled(database, "candles_1h", "ts, is_final")
    # The first has a minute that is not final, the second its last minute; the third may still grow.
    assert [final for _, final in hours] == [False, True, now.minute == 59]


async def test_old_minutes_are_dropped_and_their_rollups_stay(database: Database) -> None:
    old = datetime(2024, 3, 5, 14, 0, tzinfo=UTC)
    await write(database, *minutes(old, 60, volume=1.0), *minutes(OLD, 5))
    await write(database, bar(ts=old, interval="5m"), bar(ts=old, interval="1h"), bar(ts=old, interval="1d"))
    await settle(database)
    before = await rolled(database, "candles_5m"), await rolled(database, "candles_1h")
    assert len(before[0]) == 13
    assert await retention.drop_minutes(database, retention.horizon(NOW, 365)) != []
    await settle(database)
    kept = await rows(
        database, "SELECT interval, min(timestamp) FROM market_data GROUP BY interval ORDER BY interval"
    )
    assert kept == [("1d", old), ("1h", old), ("1m", OLD), ("5m", old)]
    assert (await rolled(database, "candles_5m"), await rolled(database, "candles_1h")) == before
    assert await rows(database, "SELECT * FROM gap_dirty_ranges") == []


async def test_minutes_that_come_after_they_were_given_up_change_no_rollup(database: Database) -> None:
    old = datetime(2024, 3, 5, 14, 0, tzinfo=UTC)
    await write(database, *minutes(old, 60, volume=1.0))
    await settle(database)
    before = await rolled(database, "candles_1h")
    await retention.drop_minutes(database, retention.horizon(NOW, 365))
    await write(database, *minutes(old, 2, volume=7.0))
    await settle(database)
    assert await rolled(database, "candles_1h") == before
    await retention.drop_minutes(database, retention.horizon(NOW, 365))
    assert await rows(database, "SELECT * FROM candles_intraday") == []


async def test_minutes_whose_rollups_are_not_kept_yet_are_not_dropped(database: Database) -> None:
    old = datetime(2024, 3, 5, 14, 0, tzinfo=UTC)
    await database.pool.execute("UPDATE rollup_state SET rolled_until = '-infinity'")
    await write(database, *minutes(old, 5))
    assert await retention.drop_minutes(database, retention.horizon(NOW, 365)) == []
    assert await rows(database, "SELECT count(*) FROM candles_intraday") == [(5,)]


async def test_a_minute_that_comes_between_the_rollup_and_the_drop_is_rolled_up_first(
    database: Database,
) -> None:
    old, horizon = datetime(2024, 3, 5, 14, 0, tzinfo=UTC), retention.horizon(NOW, 365)
    await write(database, *minutes(old, 2, volume=1.0))
    await rollups.refresh(database, NOW)
    async with database.transaction() as connection:
        await bars.write(connection, table(*minutes(old + 2 * MINUTE, 1, volume=1.0)))
        await rollups.refresh(database, NOW)  # does not see it yet
        dropping = asyncio.create_task(retention.drop_minutes(database, horizon))
        await asyncio.sleep(0.3)
    assert await dropping == []
    await rollups.refresh(database, NOW)
    assert await retention.drop_minutes(database, horizon) != []
    assert await rolled(database, "candles_1h", "ts, volume") == [(old, 3.0)]


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


async def test_bars_of_a_provider_come_before_rollups(database: Database) -> None:
    await write(database, *minutes(OLD, 10, volume=1.0))
    await settle(database)
    made = await bars.read(database, "AAPL", Interval.M5, OLD, or_rolled=True)
    assert made["source"].to_pylist() == ["rollup", "rollup"]
    assert made["volume"].to_pylist() == [5.0, 5.0]
    newest = await bars.read(database, "AAPL", Interval.M5, OLD, limit=1, newest=True, or_rolled=True)
    assert newest["ts"].to_pylist() == [OLD + 5 * MINUTE]
    await write(database, bar(ts=OLD, interval="5m"))
    found = await bars.read(database, "AAPL", Interval.M5, OLD, or_rolled=True)
    assert found["source"].to_pylist() == ["synthetic"]
    assert (await bars.read(database, "AAPL", Interval.H1)).num_rows == 0


async def test_a_round_of_upkeep_does_it_all_and_stands_a_second_cluster(database: Database) -> None:
    await add(database, "AAPL", "XNYS")
    old, clock, keeping = datetime(2024, 3, 5, 14, 30, tzinfo=UTC), SystemClock(), upkeep.Keeping()
    await write(database, *minutes(old, 60, volume=1.0))
    await asyncio.gather(
        *(upkeep.keep(database, clock, keeping) for _ in range(2)), upkeep.roll(database, clock)
    )
    await upkeep.keep(database, clock, keeping)
    assert await rows(database, "SELECT * FROM candles_intraday") == []
    assert await rolled(database, "candles_1h", "ts, volume") == [(old, 60.0)]


moments = st.builds(
    lambda day, at: datetime(2025, 3, 7, tzinfo=UTC) + timedelta(days=day, minutes=at),
    st.integers(0, 3),  # the clocks of New York change in between
    st.one_of(st.integers(0, 1_439), st.integers(805, 875), st.integers(1_190, 1_270)),
)
values = st.tuples(
    st.sampled_from(["AAPL", "BTC"]),
    moments,
    st.integers(1, 9).map(float),
    st.none() | st.floats(0, 1e6).map(lambda volume: round(volume, 4)),
)
CALENDARS = {"AAPL": "XNYS", "BTC": "24/7"}


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    first=st.lists(values, max_size=40),
    second=st.lists(values, max_size=10),
    gone=st.sets(moments, max_size=5),
)
async def test_rollups_are_those_of_the_definition(
    database: Database, first: list[Any], second: list[Any], gone: set[datetime]
) -> None:
    await empty(database)
    for symbol, calendar in CALENDARS.items():
        await add(database, symbol, calendar)
    await session_hours.align(database, NOW)
    expected: dict[Any, dict[str, Any]] = {}
    for batch in (first, second):
        made = [minute(ts, price, volume, symbol=symbol) for symbol, ts, price, volume in batch]
        await write(database, *made)
        await settle(database)
        given = {(row["symbol"], row["ts"]): row for row in made}  # of several the last one wins
        for key, row in given.items():
            known = expected.get(key)
            if known is None or row["volume"] is not None or row["close"] != known["close"]:
                expected[key] = row  # what only leaves the volume unknown changes nothing
    await database.pool.execute("DELETE FROM candles_intraday WHERE ts = ANY($1)", list(gone))
    await settle(database)
    left = [row for (_, ts), row in expected.items() if ts not in gone]
    assert await rolled(database, "candles_5m") == reference.rolled(left, reference.five_minutes)
    hours = {symbol: reference.hour_of(calendar) for symbol, calendar in CALENDARS.items()}
    assert await rolled(database, "candles_1h") == reference.rolled(
        left, lambda row: hours[row["symbol"]](row)
    )
    total = sum(row["volume"] for row in left if row["volume"] is not None)
    for view in ("candles_5m", "candles_1h"):
        ((summed,),) = await rows(database, f"SELECT coalesce(sum(volume), 0) FROM {view}")
        assert summed == pytest.approx(total)


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
