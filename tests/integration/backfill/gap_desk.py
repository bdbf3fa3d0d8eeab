"""A watch over gaps with its clock and instruments; minutes count from `T`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from cluster.backfill.gap_offers import Offers
from cluster.backfill.gap_scan import Scanned, WatchRules
from cluster.backfill.gap_watch import GapWatch
from cluster.clock import FakeClock
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.storage import known_gaps
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.database import Database
from cluster.storage.known_gaps import Hole
from tests.integration.storage.bar_tables import bar, write

M1 = Interval.M1
T = datetime(2025, 10, 8, 14, tzinfo=UTC)
BITCOIN = Instrument("BTC-USD", "BINANCE", "crypto", "24/7", tier="T0")
ETHER = Instrument("ETH-USD", "BINANCE", "crypto", "24/7", tier="T0")
MONERO = Instrument("XMR-USD", "BINANCE", "crypto", "24/7", tier="T0")
AAPL = Instrument("AAPL", "NASDAQ", "equity", "XNYS", tier="T0")
RULES = WatchRules({"T0": [M1]}, grace_s=0.0)

Found = list[tuple[str, str, str, str]]


def minute(number: int) -> datetime:
    return T + timedelta(minutes=number)


async def store(database: Database, symbol: str, opens: Iterable[datetime], **changes: bool) -> None:
    await write(database, *(bar(symbol, ts, **changes) for ts in opens))


class Desk:
    """A watch, its clock, and a look at its tables."""

    def __init__(self, database: Database, now: datetime, rules: WatchRules = RULES) -> None:
        self.database, self.clock, self.queue = database, FakeClock(now), BackfillQueue(database)
        self.rules, self.offers = rules, Offers()

    async def scan(self, interval: Interval = M1) -> Scanned:
        watch = GapWatch(self.database, self.queue, self.clock, self.rules)
        scanned = await watch.scan(interval, ["T0"], self.offers)
        assert scanned is not None
        return scanned

    def at(self, now: datetime) -> None:
        self.clock.advance((now - self.clock.now()).total_seconds())

    async def gaps(self) -> Found:
        """Symbol, first and after of each gap as hours and minutes, cause."""
        rows = await self.database.pool.fetch("SELECT * FROM gaps ORDER BY symbol, start_ts")
        return [
            (row["symbol"], f"{row['start_ts']:%H:%M}", f"{row['end_ts']:%H:%M}", row["cause"])
            for row in rows
        ]

    async def queued(self) -> list[tuple[str, str, str, str | None]]:
        """The same of the jobs that wait, with their provider."""
        rows = await self.database.pool.fetch(
            "SELECT * FROM backfill_jobs WHERE state = 'ready' ORDER BY symbol, start_ts, provider"
        )
        return [
            (row["symbol"], f"{row['start_ts']:%H:%M}", f"{row['end_ts']:%H:%M}", row["provider"])
            for row in rows
        ]

    async def answered(self, provider: str, first: int, after: int, cause: known_gaps.Cause) -> None:
        """`provider` was asked for all of it, and the queue is empty."""
        await self.database.pool.execute("DELETE FROM backfill_jobs")
        span = Span(minute(first), minute(after))
        async with self.database.transaction() as connection:
            holes = [Hole(span, cause)]
            await known_gaps.record(connection, "BTC-USD", M1, provider, span, holes)
