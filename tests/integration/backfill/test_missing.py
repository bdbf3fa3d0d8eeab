from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.backfill import missing
from cluster.backfill.missing import OPEN, Cause
from cluster.market import calendars, gaps
from cluster.market.bars import BAR_SCHEMA
from cluster.market.gaps import Gap
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.storage import bars, known_gaps
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.database import Database
from cluster.storage.known_gaps import Hole
from tests.integration.storage.bar_tables import bar

pytestmark = pytest.mark.postgres

AAPL = Instrument("AAPL", "NASDAQ", "equity", "XNYS", tier="T0")
BTC = Instrument("BTC-USD", "BINANCE", "crypto", "24/7")
START, END = datetime(2025, 10, 8, 12, tzinfo=UTC), datetime(2025, 10, 8, 13, tzinfo=UTC)
LATER = datetime(2026, 1, 1, tzinfo=UTC)


def minute(number: int) -> datetime:
    return START + timedelta(minutes=number)


async def store(database: Database, *rows: dict[str, Any]) -> None:
    async with database.transaction() as connection:
        await bars.write(connection, pa.Table.from_pylist(list(rows), schema=BAR_SCHEMA))


async def found(
    database: Database,
    *instruments: Instrument,
    start: datetime | None = START,
    end: datetime = END,
    interval: Interval = Interval.M1,
) -> list[tuple[str, Gap, Cause]]:
    starts = await missing.since(database, instruments, interval, start)
    wanted = missing.settled(instruments, starts, interval, end, LATER)
    return [
        (each.instrument.symbol, each.gap, each.cause)
        for each in await missing.find(database, wanted, interval)
    ]


async def test_minutes_missing_at_both_ends_and_between_are_found(database: Database) -> None:
    await store(database, *(bar("BTC-USD", minute(number)) for number in (2, 3, 4, 8, 9)))
    assert await found(database, BTC, end=minute(12)) == [
        ("BTC-USD", Gap(minute(0), minute(2), 2), OPEN),
        ("BTC-USD", Gap(minute(5), minute(8), 3), OPEN),
        ("BTC-USD", Gap(minute(10), minute(12), 2), OPEN),
    ]


async def test_a_symbol_without_bars_misses_all_of_the_range_and_is_left_out_without_one(
    database: Database,
) -> None:
    assert await found(database, BTC, end=minute(12)) == [("BTC-USD", Gap(START, minute(12), 12), OPEN)]
    assert await found(database, BTC, start=None) == []


async def test_a_closed_market_is_no_gap_and_half_a_day_ends_early(database: Database) -> None:
    # Thanksgiving 2025: the 28th ends at 18:00 UTC, the next session opens on Monday, 2025-12-01, 14:30.
    last, first = datetime(2025, 11, 28, 17, 59, tzinfo=UTC), datetime(2025, 12, 1, 14, 30, tzinfo=UTC)
    await store(database, bar(ts=last), bar(ts=first))
    assert await found(database, AAPL, start=last, end=first + timedelta(minutes=1)) == []


async def test_a_bar_that_is_not_final_is_missing(database: Database) -> None:
    await store(database, bar("BTC-USD", minute(0)), bar("BTC-USD", minute(1), is_final=False))
    assert await found(database, BTC, end=minute(2)) == [("BTC-USD", Gap(minute(1), minute(2), 1), OPEN)]


async def test_bars_off_the_grid_do_not_stand_in_for_those_on_it(database: Database) -> None:
    half = timedelta(seconds=30)
    odd = [bar("BTC-USD", minute(number) + half, aligned=False) for number in (0, 1)]
    await store(database, bar("BTC-USD", minute(0)), *odd, bar("BTC-USD", minute(2)))
    assert await found(database, BTC, end=minute(3)) == [("BTC-USD", Gap(minute(1), minute(2), 1), OPEN)]


async def test_hours_that_start_on_the_hour_do_not_stand_in_for_those_of_new_york(
    database: Database,
) -> None:
    opens = [datetime(2025, 10, 8, hour, 0, tzinfo=UTC) for hour in (14, 15, 16)]
    await store(database, *(bar(ts=ts, interval="1h") for ts in opens))
    end = datetime(2025, 10, 8, 16, 30, tzinfo=UTC)
    first = datetime(2025, 10, 8, 13, 30, tzinfo=UTC)  # then 14:30 and 15:30
    assert await found(database, AAPL, end=end, interval=Interval.H1) == [("AAPL", Gap(first, end, 3), OPEN)]


async def test_the_range_begins_with_the_oldest_bar_of_each_symbol(database: Database) -> None:
    await store(database, bar("BTC-USD", minute(3)), bar("ETH-USD", minute(6)))
    eth = Instrument("ETH-USD", "BINANCE", "crypto", "24/7")
    assert [(name, gap.start) for name, gap, _ in await found(database, BTC, eth, start=None)] == [
        ("BTC-USD", minute(4)),
        ("ETH-USD", minute(7)),
    ]


async def test_minutes_that_were_given_up_for_their_age_are_not_missing(database: Database) -> None:
    await store(database, *(bar("BTC-USD", minute(number)) for number in (0, 2, 4, 6)))
    await store(database, bar("BTC-USD", minute(0), interval="15m"))
    await database.pool.execute("UPDATE rollup_state SET kept_from = $1", minute(3))
    kept = [("BTC-USD", Gap(minute(number), minute(number + 1), 1), OPEN) for number in (3, 5)]
    assert await found(database, BTC, start=minute(1), end=minute(7)) == kept
    assert await found(database, BTC, start=None, end=minute(7)) == kept
    assert await found(database, BTC, end=minute(3)) == []
    longer = await found(database, BTC, end=minute(30), interval=Interval.M15)
    assert longer == [("BTC-USD", Gap(minute(15), minute(30), 1), OPEN)]


async def test_each_missing_bar_has_the_cause_that_explains_it(
    database: Database, queue: BackfillQueue
) -> None:
    await store(database, bar("BTC-USD", minute(0)))
    await queue.enqueue("BTC-USD", Interval.M1, minute(20), minute(30))
    (lease,) = await queue.claim("w", 1)
    await queue.fail(lease, "InvalidSymbol: no", retry_in_s=None)
    await queue.enqueue("BTC-USD", Interval.M1, minute(5), minute(10))
    hole = Hole(Span(minute(9), minute(15)), "provider_hole")
    async with database.transaction() as connection:
        await known_gaps.record(connection, "BTC-USD", Interval.M1, "binance", hole.span, [hole])
    assert [(gap.start, gap.missing, cause) for _, gap, cause in await found(database, BTC)] == [
        (minute(1), 4, OPEN),
        (minute(5), 5, Cause("queued")),
        (minute(10), 5, Cause("provider_hole", "binance")),
        (minute(15), 5, OPEN),
        (minute(20), 10, Cause("given_up", None, "InvalidSymbol: no")),
        (minute(30), 30, OPEN),
    ]


@pytest.mark.parametrize("interval", [Interval.M1, Interval.M30, Interval.H1, Interval.D1])
async def test_it_finds_what_comparing_every_single_bar_finds(database: Database, interval: Interval) -> None:
    start, end = datetime(2025, 11, 20, tzinfo=UTC), datetime(2025, 12, 5, tzinfo=UTC)
    random = np.random.default_rng(7)
    rows, expected_gaps = [], []
    for number in range(6):
        instrument = Instrument(f"S{number}", "X", "equity", "XNYS" if number % 2 else "24/7")
        opens = calendars.expected_opens(instrument.calendar, interval, start, end)
        kept = opens[np.convolve(random.random(len(opens)) < 0.02 * number, np.ones(3), "same") == 0]
        moments = [moment.replace(tzinfo=UTC) for moment in kept.tolist()]
        rows += [bar(instrument.symbol, ts, interval=str(interval)) for ts in moments]
        expected_gaps += [(instrument.symbol, gap, OPEN) for gap in gaps.find(opens, kept, interval)]
    await store(database, *rows)
    instruments = [
        Instrument(f"S{number}", "X", "equity", "XNYS" if number % 2 else "24/7") for number in range(6)
    ]
    assert await found(database, *instruments, start=start, end=end, interval=interval) == expected_gaps
    assert interval is Interval.D1 or len(expected_gaps) > 6
