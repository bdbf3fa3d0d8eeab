"""Gaps follow the exchange's calendar, and what was declared about its sessions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from cluster.market import calendars
from cluster.market.calendars import Override
from cluster.storage import calendar_overrides, universe
from cluster.storage.database import Database
from tests.integration.backfill.gap_desk import (
    AAPL,
    M1,
    Desk,
    store,
)

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize(
    ("calendar", "removed"),
    [
        ("XNYS", "2025-11-28T14:30"),  # the open of a half day
        ("XNYS", "2025-11-28T17:59"),  # its last minute, 12:59 in New York
        ("XNYS", "2025-03-10T13:30"),  # the open after the clocks of New York changed
        ("XLON", "2025-03-31T07:00"),  # and of London
        ("XTKS", "2025-12-01T03:30"),  # the first minute after lunch
        ("XHKG", "2025-12-01T03:59"),  # the last before it
    ],
)
async def test_one_bar_removed_on_a_special_day_is_one_gap_of_one_bar(
    database: Database, calendar: str, removed: str
) -> None:
    at = datetime.fromisoformat(removed).replace(tzinfo=UTC)
    start, end = at.replace(hour=0, minute=0), at.replace(hour=23, minute=0)
    opens = calendars.expected_opens(calendar, M1, start, end).tolist()
    await universe.add(database, replace(AAPL, calendar=calendar))
    await store(database, "AAPL", [open_.replace(tzinfo=UTC) for open_ in opens])
    desk = Desk(database, end)
    await desk.scan()
    assert await desk.gaps() == []
    await database.pool.execute("DELETE FROM candles_intraday WHERE ts = $1", at)
    await desk.scan()
    end_of_it = at + timedelta(minutes=1)
    assert await desk.gaps() == [("AAPL", f"{at:%H:%M}", f"{end_of_it:%H:%M}", "not_fetched")]
    assert await database.pool.fetchval("SELECT missing FROM gaps WHERE start_ts = $1", at) == 1


async def test_days_without_a_session_and_overnight_hours_are_no_gaps(database: Database) -> None:
    """The day of mourning of 2025-01-09 lies between two full sessions."""
    start, end = datetime(2025, 1, 8, tzinfo=UTC), datetime(2025, 1, 11, tzinfo=UTC)
    opens = calendars.expected_opens("XNYS", M1, start, end).tolist()
    assert len(opens) == 780
    await universe.add(database, AAPL)
    await store(database, "AAPL", [open_.replace(tzinfo=UTC) for open_ in opens])
    desk = Desk(database, end)
    await desk.scan()
    assert await desk.gaps() == []


async def test_a_session_that_is_declared_closed_takes_its_gaps_and_jobs_with_it(database: Database) -> None:
    day, end = datetime(2025, 10, 8, tzinfo=UTC), datetime(2025, 10, 10, tzinfo=UTC)
    opens = [open_.replace(tzinfo=UTC) for open_ in calendars.expected_opens("XNYS", M1, day, end).tolist()]
    await universe.add(database, AAPL)
    before = datetime(2025, 10, 7, 19, 59, tzinfo=UTC)
    await store(database, "AAPL", [before, *opens[389:]])
    desk = Desk(database, end)
    await desk.scan()
    assert ("AAPL", "13:30", "19:59", "not_fetched") in await desk.gaps()
    jobs = await desk.queued()
    mourning = Override("XNYS", date(2025, 10, 8), None, None, "mourning")
    assert await calendar_overrides.put(database, [mourning]) == 1
    assert await calendar_overrides.put(database, [mourning]) == 0
    await desk.scan()
    assert ("AAPL", "13:30", "19:59", "not_fetched") not in await desk.gaps()
    assert [job for job in jobs if job not in await desk.queued()] == [("AAPL", "13:30", "19:59", None)]
    reason = await database.pool.fetchval("SELECT reason FROM backfill_jobs WHERE state = 'done'")
    assert reason == "the calendar expects no bars here any more"
    assert await calendar_overrides.drop(database, [mourning]) == 1
    await desk.scan()
    assert ("AAPL", "13:30", "19:59", "not_fetched") in await desk.gaps()


async def test_a_session_with_other_hours_is_expected_then(database: Database) -> None:
    day = datetime(2025, 10, 11, tzinfo=UTC)  # a Saturday
    await universe.add(database, AAPL)
    await store(database, "AAPL", [datetime(2025, 10, 10, 19, 59, tzinfo=UTC)])
    desk = Desk(database, day + timedelta(days=1))
    await desk.scan()
    assert await desk.gaps() == []
    opened = Override(
        "XNYS", day.date(), day + timedelta(hours=15), day + timedelta(hours=15, minutes=5), "test"
    )
    await calendar_overrides.put(database, [opened])
    await desk.scan()
    assert await desk.gaps() == [("AAPL", "15:00", "15:05", "not_fetched")]


async def test_a_change_of_a_calendar_that_nobody_knows_stops_no_scan(database: Database) -> None:
    await universe.add(database, AAPL)
    await store(database, "AAPL", [datetime(2025, 10, 8, 13, 30, tzinfo=UTC)])
    desk = Desk(database, datetime(2025, 10, 8, 13, 33, tzinfo=UTC))
    await desk.scan()
    await database.pool.execute("UPDATE symbol_universe SET calendar = 'NOPE'")
    await database.pool.execute("INSERT INTO calendar_overrides VALUES ('NOPE', '2025-10-08')")
    assert (await desk.scan()).asked == 0
    assert await database.pool.fetchval("SELECT count(*) FROM gap_dirty_ranges WHERE interval = '1m'") == 0


_UNCHECKED = """
DO $$
DECLARE
    checked text := (SELECT conname FROM pg_constraint WHERE conname LIKE 'symbol: %');
    rule text := (SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname LIKE 'symbol: %');
BEGIN
    EXECUTE format('ALTER TABLE symbol_universe DROP CONSTRAINT %I', checked);
    INSERT INTO symbol_universe (symbol, exchange, asset_type, tier, calendar)
    VALUES ('AAPL US', 'NASDAQ', 'equity', 'T0', 'XNYS');
    EXECUTE format('ALTER TABLE symbol_universe ADD CONSTRAINT %I %s', checked, rule);
END
$$
"""


async def test_a_row_from_before_the_checks_keeps_no_other_symbol_of_its_calendar_from_being_watched(
    database: Database,
) -> None:
    await database.pool.execute(_UNCHECKED)
    await universe.add(database, AAPL)
    opens = [datetime(2025, 10, 8, 13, 30, tzinfo=UTC), datetime(2025, 10, 8, 13, 32, tzinfo=UTC)]
    for symbol in ("AAPL", "AAPL US"):
        await store(database, symbol, opens)
    desk = Desk(database, datetime(2025, 10, 8, 13, 33, tzinfo=UTC))
    await desk.scan()
    assert await desk.gaps() == [("AAPL", "13:31", "13:32", "not_fetched")]
