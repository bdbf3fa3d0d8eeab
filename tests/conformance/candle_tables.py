"""What the tests of candle storage write, and how they look at it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cluster.storage import retention, rollups
from cluster.storage.database import Database
from tests.integration.storage.bar_tables import bar

MINUTE = timedelta(minutes=1)
NOW = datetime(2025, 12, 10, 12, 0, tzinfo=UTC)
OLD = datetime(2025, 10, 8, 14, 0, tzinfo=UTC)
"""Of a day that is compressed by now."""
OHLCV = "symbol, ts, open, high, low, close, volume, trade_count, minutes"


async def empty(database: Database) -> None:
    """As after the migration, whatever a test did."""
    await database.pool.execute("TRUNCATE candles_intraday, candles_daily")
    await database.pool.execute("DELETE FROM rollup_dirty WHERE symbol IS NOT NULL")
    await database.pool.execute("UPDATE rollup_state SET kept_from = '-infinity'")
    await rollups.refresh(database, NOW)
    await database.pool.execute("DELETE FROM symbol_universe; DELETE FROM gap_dirty_ranges")


async def rows(database: Database, query: str, *arguments: object) -> Sequence[tuple[Any, ...]]:
    return [tuple(row) for row in await database.pool.fetch(query, *arguments)]


async def rolled(database: Database, view: str, columns: str = OHLCV) -> Sequence[tuple[Any, ...]]:
    return await rows(database, f"SELECT {columns} FROM {view} ORDER BY symbol, ts")


def minute(ts: datetime, price: float = 10.0, volume: float | None = 100.0, **changes: Any) -> dict[str, Any]:
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    return bar(ts=ts, volume=volume, **{**prices, **changes})


def minutes(start: datetime, count: int, **changes: Any) -> list[dict[str, Any]]:
    return [minute(start + place * MINUTE, **changes) for place in range(count)]


async def add(database: Database, symbol: str, calendar: str) -> None:
    await database.pool.execute(
        "INSERT INTO symbol_universe (symbol, exchange, asset_type, calendar) VALUES ($1, 'X', 'equity', $2)",
        symbol,
        calendar,
    )


async def settle(database: Database) -> None:
    """Rollups kept and old chunks compressed, as after a while."""
    await rollups.refresh(database, NOW)
    await retention.compress(database, retention.horizon(NOW, 14))
