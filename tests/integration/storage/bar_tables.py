"""Short ways to make bars and to look at what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from cluster.market.bars import BAR_SCHEMA
from cluster.storage import bars
from cluster.storage.bars import WriteResult
from cluster.storage.database import Database

NOON = datetime(2025, 10, 8, 12, 0, tzinfo=UTC)


def bar(symbol: str = "AAPL", ts: datetime = NOON, close: float = 10.5, **changes: Any) -> dict[str, Any]:
    """One row of `BAR_SCHEMA`: 10, 12, 9, `close`, a minute long unless `changes` says otherwise."""
    return {
        "symbol": symbol,
        "interval": "1m",
        "ts": ts,
        "open": 10.0,
        "high": 12.0,
        "low": 9.0,
        "close": close,
        "volume": 100.0,
        "trade_count": 7,
        "source": "synthetic",
        "is_final": True,
        "aligned": True,
    } | changes


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=BAR_SCHEMA)


async def write(database: Database, *rows: dict[str, Any], asked_at: datetime | None = None) -> WriteResult:
    async with database.transaction() as connection:
        return await bars.write(connection, table(*rows), asked_at=asked_at)


async def stored(
    database: Database, columns: str = "symbol, ts, close, revision"
) -> Sequence[tuple[Any, ...]]:
    """The given columns of all intraday bars, by key."""
    rows = await database.pool.fetch(f"SELECT {columns} FROM candles_intraday ORDER BY symbol, interval, ts")
    return [tuple(row) for row in rows]
