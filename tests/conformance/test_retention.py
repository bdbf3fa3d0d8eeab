"""Old minutes go, their rollups stay, and upkeep does it all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from cluster.clock import SystemClock
from cluster.storage import bars, retention, rollups, upkeep
from cluster.storage.database import Database
from tests.conformance.candle_tables import MINUTE, NOW, OLD, add, minutes, rolled, rows, settle
from tests.integration.storage.bar_tables import bar, table, write

pytestmark = pytest.mark.postgres


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
