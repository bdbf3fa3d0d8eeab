"""Whatever happens to the bars: looking at what is new finds what looking at everything does."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.market.calendars import Override
from cluster.storage import calendar_overrides, universe
from cluster.storage.database import Database
from tests.integration.backfill.gap_desk import (
    AAPL,
    BITCOIN,
    Desk,
    store,
)

pytestmark = pytest.mark.postgres


STEP = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(["BTC-USD", "AAPL"]), st.integers(0, 60), st.integers(1, 12)),
    st.tuples(
        st.just("delete"), st.sampled_from(["BTC-USD", "AAPL"]), st.integers(0, 60), st.integers(1, 12)
    ),
    st.tuples(st.just("truncate"), st.just(""), st.just(0), st.just(0)),
    st.tuples(st.just("close"), st.just(""), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("time"), st.just(""), st.integers(1, 12), st.just(0)),
    st.tuples(st.just("scan"), st.just(""), st.just(0), st.just(0)),
)


class TestAnyHistory:
    """Minutes 0 to 29 are the last half hour of a session, 30 to 60 the first of the next."""

    @staticmethod
    def ts(number: int) -> datetime:
        if number < 30:
            return datetime(2025, 10, 8, 19, 30, tzinfo=UTC) + timedelta(minutes=number)
        return datetime(2025, 10, 9, 13, tzinfo=UTC) + timedelta(minutes=number)

    async def apply(self, desk: Desk, step: tuple[str, str, int, int]) -> None:
        what, symbol, first, count = step
        last = min(60, first + count - 1)
        if what == "write":
            opens = [self.ts(number) for number in range(first, last + 1)]
            await store(desk.database, symbol, opens)
        elif what == "delete":
            await desk.database.pool.execute(
                "DELETE FROM candles_intraday WHERE symbol = $1 AND ts BETWEEN $2 AND $3",
                symbol, self.ts(first), self.ts(last),
            )  # fmt: skip
        elif what == "truncate":
            await desk.database.pool.execute("TRUNCATE candles_intraday")
        elif what == "close":
            change = [Override("XNYS", date(2025, 10, 9), None, None, "closed")]
            await (calendar_overrides.put, calendar_overrides.drop)[first](desk.database, change)
        elif what == "time":
            desk.clock.advance(first * 60)
        else:
            await desk.scan()

    async def missing(self, database: Database) -> list[tuple[str, datetime, datetime, int]]:
        rows = await database.pool.fetch("SELECT * FROM gaps ORDER BY symbol, start_ts")
        return [(row["symbol"], row["start_ts"], row["end_ts"], row["missing"]) for row in rows]

    @settings(
        max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    @given(st.lists(STEP, min_size=4, max_size=14))
    def test_scans_of_what_is_new_find_what_a_scan_of_everything_finds(
        self, backfill_dsn: str, steps: list[tuple[str, str, int, int]]
    ) -> None:
        asyncio.run(self.history(backfill_dsn, steps))

    async def history(self, dsn: str, steps: list[tuple[str, str, int, int]]) -> None:
        database = await Database.open(dsn, max_size=4)
        try:
            await database.pool.execute(
                "TRUNCATE backfill_jobs, known_gaps, symbol_universe, candles_intraday, gaps, "
                "gap_watermarks, calendar_overrides"
            )
            for each in (BITCOIN, AAPL):
                await universe.add(database, each)
            for symbol in ("BTC-USD", "AAPL"):
                await store(database, symbol, [self.ts(0)])
            desk = Desk(database, datetime(2025, 10, 9, 13, 40, tzinfo=UTC))
            await desk.scan()
            for step in steps:
                await self.apply(desk, step)
            await desk.scan()
            found = await self.missing(database)
            await database.pool.execute("UPDATE gap_watermarks SET full_at = '-infinity'")
            assert (await desk.scan()).compared_all == 2
            assert await self.missing(database) == found
            await database.pool.execute("DELETE FROM gaps")
            await database.pool.execute("UPDATE gap_watermarks SET full_at = '-infinity'")
            await desk.scan()
            assert await self.missing(database) == found
        finally:
            await database.close()
