"""The gap watch on real tables: what it finds, what it forgets, what it queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster import metrics
from cluster.backfill.actor import UniverseCalendar
from cluster.backfill.gap_watch import GapWatch, Offers, Scanned, WatchRules
from cluster.backfill.worker import Worker
from cluster.clock import FakeClock
from cluster.market import calendars
from cluster.market.calendars import Override
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.gateway import Gateway
from cluster.providers.protocol import Capabilities
from cluster.providers.sample import SampleProvider
from cluster.providers.stats import Standing
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import bars, calendar_overrides, known_gaps, universe
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.database import Database
from cluster.storage.known_gaps import Hole
from tests.integration.storage.bar_tables import bar, write

pytestmark = pytest.mark.postgres

M1, D1 = Interval.M1, Interval.D1
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


@pytest.fixture(autouse=True)
async def calendars_of_the_library(database: Database) -> AsyncIterator[None]:
    yield
    calendars.install_overrides([])


async def test_what_between_deletes_by_hand_is_found_at_the_next_scan_and_queued(database: Database) -> None:
    """Both ends of BETWEEN are deleted: 11 minutes."""
    await universe.add(database, BITCOIN)
    await store(database, "BTC-USD", map(minute, range(-30, 30)))
    desk = Desk(database, minute(30))
    assert await desk.scan() == Scanned(compared_all=1, compared_new=0, judged=0, found=0, asked=0)
    await database.pool.execute(
        "DELETE FROM candles_intraday WHERE symbol = 'BTC-USD' AND interval = '1m' "
        "AND ts BETWEEN '2025-10-08 14:00:00' AND '2025-10-08 14:10:00'"
    )
    assert await desk.scan() == Scanned(compared_all=0, compared_new=1, judged=1, found=1, asked=1)
    assert await desk.gaps() == [("BTC-USD", "14:00", "14:11", "not_fetched")]
    assert await desk.queued() == [("BTC-USD", "14:00", "14:11", None)]
    assert await database.pool.fetchval("SELECT missing FROM gaps") == 11


async def test_a_gap_is_counted_once_however_often_and_for_however_long_it_is_seen(
    database: Database,
) -> None:
    await universe.add(database, BITCOIN)
    await store(database, "BTC-USD", [minute(0)])
    desk = Desk(database, minute(3))
    counted = metrics.gaps_found_total.labels("1m")
    before = counted._value.get()
    for number in range(3, 8):
        desk.at(minute(number))
        await desk.scan()
    assert await desk.gaps() == [("BTC-USD", "14:01", "14:06", "not_fetched")]
    assert counted._value.get() - before == 1


async def test_a_bar_that_arrives_splits_the_gap_and_the_last_one_ends_it(database: Database) -> None:
    await universe.add(database, BITCOIN)
    await store(database, "BTC-USD", [minute(0), minute(6)])
    desk = Desk(database, minute(7))
    await desk.scan()
    await store(database, "BTC-USD", [minute(3)])
    assert (await desk.scan()).found == 0
    assert await desk.gaps() == [
        ("BTC-USD", "14:01", "14:03", "not_fetched"),
        ("BTC-USD", "14:04", "14:06", "not_fetched"),
    ]
    await store(database, "BTC-USD", map(minute, (1, 2, 4, 5)))
    await desk.scan()
    assert await desk.gaps() == []


async def test_the_loss_of_the_oldest_bars_and_of_all_bars_is_a_loss(database: Database) -> None:
    await universe.add(database, BITCOIN)
    await store(database, "BTC-USD", map(minute, range(6)))
    desk = Desk(database, minute(7))
    await desk.scan()
    await database.pool.execute("DELETE FROM candles_intraday WHERE ts < '2025-10-08 14:02'")
    await desk.scan()
    assert await desk.gaps() == [("BTC-USD", "14:00", "14:02", "not_fetched")]
    await database.pool.execute("TRUNCATE candles_intraday")
    await desk.scan()
    assert await desk.gaps() == [("BTC-USD", "14:00", "14:06", "not_fetched")]


async def test_a_bar_that_is_not_final_or_that_nobody_expects_fills_no_gap(database: Database) -> None:
    await universe.add(database, BITCOIN)
    await store(database, "BTC-USD", [minute(0), minute(3)])
    await store(database, "BTC-USD", [minute(1)], is_final=False)
    await store(database, "BTC-USD", [minute(2) + timedelta(seconds=7)], aligned=False)
    desk = Desk(database, minute(4))
    await desk.scan()
    assert await desk.gaps() == [("BTC-USD", "14:01", "14:03", "not_fetched")]


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


class TestOverrides:
    async def test_a_session_that_is_declared_closed_takes_its_gaps_and_jobs_with_it(
        self, database: Database
    ) -> None:
        day, end = datetime(2025, 10, 8, tzinfo=UTC), datetime(2025, 10, 10, tzinfo=UTC)
        opens = [
            open_.replace(tzinfo=UTC) for open_ in calendars.expected_opens("XNYS", M1, day, end).tolist()
        ]
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

    async def test_a_session_with_other_hours_is_expected_then(self, database: Database) -> None:
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


class TestClasses:
    async def desk(self, database: Database, *providers: str) -> Desk:
        """The minutes 14:01 to 14:03 are missing."""
        await universe.add(database, BITCOIN)
        await store(database, "BTC-USD", [minute(0), minute(3)])
        desk = Desk(database, minute(4))
        offer = Capabilities(frozenset([M1]), None, 1_000, depth={M1: timedelta(days=7)})
        desk.offers = Offers([Standing(name, offer) for name in providers], is_complete=True)
        await desk.scan()
        return desk

    async def test_what_one_provider_lacks_the_other_is_asked_for_and_what_both_lack_did_not_trade(
        self, database: Database
    ) -> None:
        desk = await self.desk(database, "binance", "yahoo")
        await desk.answered("binance", 1, 3, "provider_hole")
        await desk.scan()
        assert await desk.gaps() == [("BTC-USD", "14:01", "14:03", "provider_hole")]
        assert await desk.queued() == [("BTC-USD", "14:00", "14:04", "yahoo")]  # with its neighbours
        await desk.answered("yahoo", 1, 3, "provider_hole")
        await desk.scan()
        assert await desk.gaps() == [("BTC-USD", "14:01", "14:03", "no_trades")]
        await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
        await desk.scan()
        assert await desk.queued() == []

    async def test_what_a_provider_had_a_part_of_is_told_apart(self, database: Database) -> None:
        desk = await self.desk(database, "binance")
        await desk.answered("binance", 2, 3, "rejected")
        await desk.scan()
        assert await desk.gaps() == [
            ("BTC-USD", "14:01", "14:02", "not_fetched"),
            ("BTC-USD", "14:02", "14:03", "rejected"),
        ]

    async def test_what_nobody_reaches_back_to_is_never_queued(self, database: Database) -> None:
        await universe.add(database, BITCOIN)
        await store(database, "BTC-USD", [minute(0), minute(3)])
        desk = Desk(database, minute(4) + timedelta(days=8))
        offer = Capabilities(frozenset([M1]), None, 1_000, depth={M1: timedelta(days=7)})
        desk.offers = Offers([Standing("yahoo", offer)], is_complete=True)
        await desk.scan()
        assert ("BTC-USD", "14:01", "14:03", "unfillable") in await desk.gaps()
        jobs = await database.pool.fetchval(
            "SELECT count(*) FROM backfill_jobs WHERE start_ts < $1", minute(3)
        )
        assert jobs == 0

    async def test_what_is_in_the_queue_or_was_given_up_lately_is_not_queued_again(
        self, database: Database
    ) -> None:
        desk = await self.desk(database, "binance")
        assert await desk.queued() == [("BTC-USD", "14:01", "14:03", None)]
        await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
        assert (await desk.scan()).asked == 0
        await database.pool.execute("UPDATE backfill_jobs SET state = 'dead', finished_at = now()")
        await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
        assert (await desk.scan()).asked == 0
        await database.pool.execute("UPDATE backfill_jobs SET finished_at = now() - interval '2 days'")
        await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
        assert (await desk.scan()).asked == 1

    async def test_jobs_that_end_without_any_answer_are_not_made_for_ever(self, database: Database) -> None:
        desk = await self.desk(database, "binance")
        for _ in range(10):
            await database.pool.execute("DELETE FROM backfill_jobs")
            await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
            await desk.scan()
        assert await desk.queued() == []
        assert await desk.gaps() == [("BTC-USD", "14:01", "14:03", "unfillable")]
        assert await database.pool.fetchval("SELECT tries FROM gaps") == 5

    async def test_what_every_symbol_of_a_venue_lacks_after_it_was_asked_for_is_its_outage(
        self, database: Database
    ) -> None:
        desk = await self.desk(database, "binance")
        for each in (ETHER, MONERO):
            await universe.add(database, each)
        for symbol in ("ETH-USD", "XMR-USD"):
            await store(database, symbol, [minute(0), minute(3)])
        await desk.scan()
        assert {cause for *_, cause in await desk.gaps()} == {
            "not_fetched"
        }  # our own outage, for all we know
        for symbol in ("BTC-USD", "ETH-USD", "XMR-USD"):
            span = Span(minute(1), minute(3))
            async with database.transaction() as connection:
                holes = [Hole(span, "provider_hole")]
                await known_gaps.record(connection, symbol, M1, "binance", span, holes)
        await desk.scan()
        await desk.scan()
        assert {cause for *_, cause in await desk.gaps()} == {"venue_down"}


async def test_two_scanners_at_once_find_and_queue_each_gap_once(database: Database) -> None:
    for each in (BITCOIN, ETHER):
        await universe.add(database, each)
    for symbol in ("BTC-USD", "ETH-USD"):
        await store(database, symbol, [minute(0), minute(3), minute(6)])
    watches = [GapWatch(database, BackfillQueue(database), FakeClock(minute(7)), RULES) for _ in range(4)]
    scans = await asyncio.gather(*(watch.scan(M1, ["T0"], Offers()) for watch in watches))
    assert sum(scan.found for scan in scans if scan) == 4
    assert await database.pool.fetchval("SELECT count(*) FROM backfill_jobs") == 4


async def test_minutes_that_were_given_up_for_their_age_are_missed_no_more(database: Database) -> None:
    await universe.add(database, BITCOIN)
    await store(database, "BTC-USD", [minute(0), minute(3), minute(6), minute(8)])
    desk = Desk(database, minute(9))
    await desk.scan()
    assert [gap[1] for gap in await desk.gaps()] == ["14:01", "14:04", "14:07"]
    await database.pool.execute("DELETE FROM backfill_jobs")
    await database.pool.execute("UPDATE rollup_state SET kept_from = $1", minute(5))
    await database.pool.execute("DELETE FROM candles_intraday WHERE ts < $1", minute(5))
    await database.pool.execute("UPDATE gaps SET next_check_at = '2000-01-01'")
    kept = [("BTC-USD", "14:05", "14:06", "not_fetched"), ("BTC-USD", "14:07", "14:08", "not_fetched")]
    await desk.scan()
    assert await desk.gaps() == kept
    assert [job[1:3] for job in await desk.queued()] == [("14:05", "14:09")]  # both, and their neighbours
    await store(database, "BTC-USD", [minute(0)])  # somebody wants it all the same
    await database.pool.execute("UPDATE gap_watermarks SET full_at = '-infinity'")
    assert (await desk.scan()).asked == 0
    assert await desk.gaps() == kept


@pytest.mark.parametrize(("symbol", "jobs"), [("SPX", 0), ("SYN0001", 1)])
async def test_what_no_configured_provider_gives_is_never_queued(
    database: Database, symbol: str, jobs: int
) -> None:
    await universe.add(database, replace(BITCOIN, symbol=symbol))
    await store(database, symbol, [minute(0)])
    desk = Desk(database, minute(3))
    told = [Gateway(provider, desk.clock) for provider in (SampleProvider(), SyntheticProvider())]
    desk.offers = Offers([await each.standing() for each in told], is_complete=True)
    await desk.scan()
    cause = "not_fetched" if jobs else "unfillable"
    assert await desk.gaps() == [(symbol, "14:01", "14:02", cause)]
    assert len(await desk.queued()) == jobs


async def test_symbols_and_intervals_that_are_watched_no_more_are_forgotten(database: Database) -> None:
    await universe.add(database, BITCOIN)
    await store(database, "BTC-USD", [minute(0), minute(3)])
    desk = Desk(database, minute(4))
    await desk.scan()
    await universe.change(database, "BTC-USD", {"tier": "T3"})
    assert await desk.scan() == Scanned(0, 0, 0, 0, 0)
    assert await desk.gaps() == []


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


async def test_a_deleted_window_is_found_queued_and_restored_by_a_worker(database: Database) -> None:
    symbol = replace(BITCOIN, symbol="SYN0001", exchange="SYNTHETIC")
    await universe.add(database, symbol)
    provider, clock = SyntheticProvider(clock=FakeClock(minute(61))), FakeClock(minute(61))
    source = Gateway(provider, clock)
    async with database.transaction() as connection:
        await bars.write(connection, await source.fetch("SYN0001", M1, minute(0), minute(60)))
    before = await database.pool.fetch("SELECT ts, open, close, volume FROM candles_intraday ORDER BY ts")
    desk = Desk(database, minute(61))
    await desk.scan()
    await database.pool.execute(
        "DELETE FROM candles_intraday WHERE ts BETWEEN $1 AND $2", minute(20), minute(30)
    )
    assert (await desk.scan()).found == 1
    queue = BackfillQueue(database)
    worker = Worker(queue, {"synthetic": source}, UniverseCalendar(database), clock)
    assert [await worker.run(lease) for lease in await queue.claim("w", 8)] == ["done"]
    await desk.scan()
    assert await desk.gaps() == []
    assert (
        await database.pool.fetch("SELECT ts, open, close, volume FROM candles_intraday ORDER BY ts")
        == before
    )
