"""Minute bars of 1 000 symbols and the 21 New York sessions of a month, 8 million rows with a few gaps.

They lie in the table as they arrive live, minute after minute, in each minute all symbols.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from benchmarks.million_bars import private_server
from cluster.backfill.gap_offers import Offers
from cluster.backfill.gap_scan import Scanned, WatchRules
from cluster.backfill.gap_watch import GapWatch
from cluster.clock import FakeClock
from cluster.market import calendars
from cluster.market.instants import to_moment
from cluster.market.intervals import Interval
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database

SYMBOLS = 1_000
START, END = datetime(2025, 9, 2, tzinfo=UTC), datetime(2025, 10, 1, tzinfo=UTC)
LAST = timedelta(minutes=30)
"""The last minutes are left out, to arrive later."""
LOST_EVERY = 100
"""Of so many symbols one has lost ten minutes, as it happens to a desk."""

_UNIVERSE = """
INSERT INTO symbol_universe (symbol, exchange, asset_type, tier, calendar)
SELECT 'SYN' || to_char(n, 'FM0000'), 'NYSE', 'equity', 'T0', 'XNYS' FROM generate_series(0, $1 - 1) AS n
"""
_BARS = """
INSERT INTO {table} (symbol, interval, ts, open, high, low, close, volume, source)
SELECT 'SYN' || to_char(n, 'FM0000'), '1m', ts, 100, 101, 99, 100, 1000, 'synthetic'
FROM unnest($1::timestamptz[]) AS ts, generate_series(0, $2 - 1) AS n
"""
_LOSE = """
DELETE FROM candles_intraday
WHERE interval = '1m' AND ts >= $1::timestamptz AND ts < $1::timestamptz + interval '10 minutes'
  AND substr(symbol, 4)::int % $2 = 0
"""


class Month:
    """The loaded table, a watch over it, and a clock that stands before its last minutes."""

    def __init__(self, database: Database, arriving: list[datetime]) -> None:
        self.database, self._arriving = database, arriving
        self._clock = FakeClock(arriving[0] + timedelta(minutes=1))
        rules = WatchRules({"T0": [Interval.M1]}, grace_s=0.0)
        self._watch = GapWatch(database, BackfillQueue(database), self._clock, rules)

    async def minute_passes(self) -> None:
        """One more minute of all symbols."""
        await _load(self.database, "candles_intraday", [self._arriving.pop(0)])
        self._clock.advance(60)

    async def forget(self) -> None:
        """The next scan looks at everything, and finds the gaps for the first time."""
        await self.database.pool.execute(
            "TRUNCATE gap_watermarks, gaps, gap_dirty_ranges, backfill_jobs CASCADE"
        )

    async def scan(self) -> tuple[float, Scanned]:
        """Seconds of a scan, and what it did."""
        begin = time.perf_counter()
        scanned = await self._watch.scan(Interval.M1, ["T0"], Offers())
        if scanned is None:
            raise SystemExit("somebody else scans")
        return time.perf_counter() - begin, scanned


@asynccontextmanager
async def month() -> AsyncIterator[tuple[Month, int]]:
    """The month on a private server, and the number of its bars."""
    opens = [to_moment(ts) for ts in calendars.expected_opens("XNYS", Interval.M1, START, END)]
    kept = [ts for ts in opens if ts < opens[-1] - LAST]
    async with private_server() as database:
        await database.pool.execute(_UNIVERSE, SYMBOLS)
        await _filled(database, kept)
        await database.pool.execute(_LOSE, opens[len(opens) // 2], LOST_EVERY)
        await database.pool.execute("VACUUM ANALYZE candles_intraday, symbol_universe")
        await database.pool.execute("CHECKPOINT")
        bars = await database.pool.fetchval("SELECT count(*) FROM candles_intraday")
        yield Month(database, opens[len(kept) :]), bars


async def _filled(database: Database, opens: list[datetime]) -> None:
    """A month put in without its index, which is made afterwards: a fifth of the time."""
    async with database.connection() as connection:
        await connection.execute("SELECT ensure_candle_partition('1m', $1)", START)
        table = await connection.fetchval("SELECT name FROM candle_partition('1m', $1)", START)
        await connection.execute(f"ALTER TABLE candles_intraday_1m DETACH PARTITION {table}")
        await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")
        await _load(database, table, opens)
        await connection.execute("SET maintenance_work_mem = '512MB'")
        await connection.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (symbol, interval, ts)")
        await connection.execute(
            f"ALTER TABLE candles_intraday_1m ATTACH PARTITION {table} "
            "FOR VALUES FROM ('2025-09-01 00:00+00') TO ('2025-10-01 00:00+00')"
        )


async def _load(database: Database, table: str, opens: list[datetime]) -> None:
    await database.pool.execute(_BARS.format(table=table), opens, SYMBOLS)
