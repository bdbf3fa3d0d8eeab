"""The statements that users and runbooks already rely on work as they stand."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from cluster.market.intervals import Interval
from cluster.storage import features
from cluster.storage.database import Database
from cluster.storage.features import FEATURE_COLUMNS
from tests.integration.storage.bar_tables import bar, write

pytestmark = pytest.mark.postgres

ADD_SYMBOL = (
    "INSERT INTO symbol_universe (symbol, exchange, asset_type, adv_21d, mkt_cap, tier, active) "
    "VALUES ('AAPL','NASDAQ','equity',50000000,3000000000000,'T0',true) "
    "ON CONFLICT (symbol) DO UPDATE SET tier = EXCLUDED.tier;"
)
ADD_VERSION = (
    "INSERT INTO universe_versions (version_tag, source_meta) "
    """VALUES ('2025w41-manual-top100','{"source":"manual"}'::jsonb);"""
)
COUNT_MINUTES = (
    "SELECT count(*) FROM candles_intraday WHERE symbol='AAPL' AND interval='1m' "
    "AND ts BETWEEN '2025-10-08 14:00:00' AND '2025-10-08 14:10:00';"
)
COUNT_FEATURES = "SELECT count(*) FROM feature_engineered_data WHERE created_at >= now() - interval '1 day';"
LAST_BAR = "SELECT max(timestamp) FROM market_data;"


async def test_a_symbol_is_added_by_hand_and_its_tier_changed(database: Database) -> None:
    await database.pool.execute(ADD_SYMBOL.replace("'T0'", "'T3'"))
    await database.pool.execute(ADD_SYMBOL)
    rows = await database.pool.fetch("SELECT symbol, mkt_cap, tier, active, calendar FROM symbol_universe")
    assert [tuple(row) for row in rows] == [("AAPL", 3e12, "T0", True, "XNYS")]


async def test_a_version_of_the_universe_is_added_by_hand(database: Database) -> None:
    await database.pool.execute(ADD_VERSION)
    source = (
        "SELECT source_meta->>'source' FROM universe_versions WHERE version_tag = '2025w41-manual-top100'"
    )
    assert await database.pool.fetchval(source) == "manual"


async def test_the_minutes_of_a_symbol_are_counted(database: Database) -> None:
    hour = datetime(2025, 10, 8, 14, tzinfo=UTC)
    await write(database, *(bar(ts=hour.replace(minute=minute)) for minute in range(20)), bar("MSFT", hour))
    assert await database.pool.fetchval(COUNT_MINUTES) == 11


async def test_recent_features_are_counted(database: Database) -> None:
    opens = np.array(["2025-10-08T14:00", "2025-10-08T14:01"], "datetime64[us]")
    values = np.zeros((2, 50), dtype=np.float32)
    async with database.transaction() as connection:
        await features.write(connection, "AAPL", Interval.M1, opens, values, FEATURE_COLUMNS, "a1b2")
    assert await database.pool.fetchval(COUNT_FEATURES) == 2
    await database.pool.execute("UPDATE feature_engineered_data SET created_at = now() - interval '2 days'")
    assert await database.pool.fetchval(COUNT_FEATURES) == 0


async def test_the_last_bar_of_all_is_found_in_market_data(database: Database) -> None:
    assert await database.pool.fetchval(LAST_BAR) is None
    noon, session = datetime(2025, 10, 8, 12, tzinfo=UTC), datetime(2025, 10, 9, 13, 30, tzinfo=UTC)
    await write(database, bar(ts=noon))
    assert await database.pool.fetchval(LAST_BAR) == noon
    await write(database, bar(ts=session, interval="1d"))
    assert await database.pool.fetchval(LAST_BAR) == session
