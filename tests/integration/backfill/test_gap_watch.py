"""The gap watch on real tables: what it finds, what it forgets, what it queues."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from cluster import metrics
from cluster.backfill import missing
from cluster.backfill.actor import UniverseCalendar
from cluster.backfill.gap_offers import Offers
from cluster.backfill.gap_scan import Scanned
from cluster.backfill.gap_watch import GapWatch
from cluster.backfill.worker import Worker
from cluster.clock import FakeClock
from cluster.providers.gateway import Gateway
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import bars, universe
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from tests.integration.backfill.gap_desk import (
    BITCOIN,
    ETHER,
    M1,
    RULES,
    Desk,
    minute,
    store,
)

pytestmark = pytest.mark.postgres


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
    starts = await missing.since(database, [BITCOIN], M1, start=None)
    assert starts == {"BTC-USD": minute(0)}  # nor do those who ask see less


async def test_bars_that_a_change_by_hand_takes_away_are_found_at_the_next_scan(database: Database) -> None:
    await universe.add(database, BITCOIN)
    await store(database, "BTC-USD", map(minute, range(8)))
    desk = Desk(database, minute(8))
    await desk.scan()
    for change in (
        "UPDATE candles_intraday SET is_final = false WHERE ts = '2025-10-08 14:01'",
        "UPDATE candles_intraday SET ts = ts + interval '7 seconds' WHERE ts = '2025-10-08 14:03'",
        "UPDATE candles_intraday SET symbol = 'OTHER' WHERE ts = '2025-10-08 14:05'",
        "UPDATE candles_intraday SET volume = 2, revision = revision + 1 WHERE ts = '2025-10-08 14:07'",
    ):
        await database.pool.execute(change)
    noted = await database.pool.fetchval("SELECT count(*) FROM gap_dirty_ranges WHERE symbol = 'BTC-USD'")
    assert noted == 3  # a revision is no loss
    await desk.scan()
    assert [(first, after) for _, first, after, _ in await desk.gaps()] == [
        ("14:01", "14:02"),
        ("14:03", "14:04"),
        ("14:05", "14:06"),
    ]


async def test_a_bar_that_is_not_final_or_that_nobody_expects_fills_no_gap(database: Database) -> None:
    await universe.add(database, BITCOIN)
    await store(database, "BTC-USD", [minute(0), minute(3)])
    await store(database, "BTC-USD", [minute(1)], is_final=False)
    await store(database, "BTC-USD", [minute(2) + timedelta(seconds=7)], aligned=False)
    desk = Desk(database, minute(4))
    await desk.scan()
    assert await desk.gaps() == [("BTC-USD", "14:01", "14:03", "not_fetched")]


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


async def test_symbols_and_intervals_that_are_watched_no_more_are_forgotten(database: Database) -> None:
    await universe.add(database, BITCOIN)
    await store(database, "BTC-USD", [minute(0), minute(3)])
    desk = Desk(database, minute(4))
    await desk.scan()
    await universe.change(database, "BTC-USD", {"tier": "T3"})
    assert await desk.scan() == Scanned(0, 0, 0, 0, 0)
    assert await desk.gaps() == []


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
