"""Bars of 5m and 1h made of minutes, with native partitions as with TimescaleDB."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster.market.intervals import Interval
from cluster.storage import bars, rollups, session_hours
from cluster.storage.database import Database
from tests.conformance.candle_tables import MINUTE, NOW, OLD, add, minute, minutes, rolled, rows, settle
from tests.integration.storage.bar_tables import bar, write

pytestmark = pytest.mark.postgres


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


async def test_a_bar_of_a_provider_comes_before_the_rollup_of_its_time(database: Database) -> None:
    await write(database, *minutes(OLD, 25, volume=1.0))
    stored = [OLD + place * MINUTE for place in (5, 10, 40)]  # the last has no minutes
    await write(database, *(bar(ts=ts, interval="5m", volume=7.0) for ts in stored))
    await settle(database)
    expected = [
        (OLD, 5.0, "rollup"),
        (OLD + 5 * MINUTE, 7.0, "synthetic"),
        (OLD + 10 * MINUTE, 7.0, "synthetic"),
        (OLD + 15 * MINUTE, 5.0, "rollup"),
        (OLD + 20 * MINUTE, 5.0, "rollup"),
        (OLD + 40 * MINUTE, 7.0, "synthetic"),
    ]
    assert await _fives(database) == expected
    for limit in range(1, 8):  # whatever is asked for at once, each bar is the same
        assert await _fives(database, limit=limit) == expected[:limit]
        assert await _fives(database, limit=limit, newest=True) == expected[-limit:]
    for place, (ts, *_) in enumerate(expected):
        assert await _fives(database, start=ts) == expected[place:]
        assert await _fives(database, end=ts) == expected[:place]
    assert (await bars.read(database, "AAPL", Interval.M5))["ts"].to_pylist() == stored
    assert (await bars.read(database, "AAPL", Interval.H1)).num_rows == 0


async def _fives(database: Database, **asked: Any) -> list[tuple[Any, ...]]:
    table = await bars.read(database, "AAPL", Interval.M5, with_rollups=True, **asked)
    return list(zip(*(table[name].to_pylist() for name in ("ts", "volume", "source")), strict=True))
