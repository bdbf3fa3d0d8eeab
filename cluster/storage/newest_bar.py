"""The newest bars of symbols: of one over all intervals, or how far many are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from cluster.market.intervals import Interval
from cluster.storage.bar_windows import candle_table
from cluster.storage.database import Database

# One look at the end of the index for each interval.
_NEWEST = """
SELECT newest.* FROM unnest($2::text[]) AS of (interval)
CROSS JOIN LATERAL (
    SELECT interval, ts, close, source, is_final, ingested_at FROM {table} AS bar
    WHERE bar.symbol = $1 AND bar.interval = of.interval ORDER BY ts DESC LIMIT 1
) AS newest
"""
_STATEMENTS = tuple(
    (_NEWEST.format(table=table), [str(each) for each in Interval if each.is_daily == daily])
    for table, daily in (("candles_intraday", False), ("candles_daily", True))
)
# One look at the end of the index for each symbol. A bar that is not final has still to come.
_REACHED = """
SELECT symbol, newest.ts IS NOT NULL AS is_given, coalesce(
    CASE WHEN newest.is_final THEN newest.ts + interval '1 microsecond' ELSE newest.ts END, created_at
) AS until
FROM symbol_universe
LEFT JOIN LATERAL (
    SELECT ts, is_final FROM {table} AS bar
    WHERE bar.symbol = symbol_universe.symbol AND bar.interval = $1 ORDER BY ts DESC LIMIT 1
) AS newest ON true
WHERE symbol = ANY($2::text[])
"""


@dataclass(frozen=True, slots=True)
class NewestBar:
    """The last bar of one interval."""

    interval: Interval
    ts: datetime
    """Its open."""
    close: float
    source: str
    is_final: bool
    ingested_at: datetime
    """When its values were last written."""


class Reached(NamedTuple):
    """How far a symbol is stored."""

    symbol: str
    is_given: bool
    """Whether there is any bar of it."""
    until: datetime
    """No final bar opens at this moment or later. Without any bar: since when the symbol is known."""


async def reached(database: Database, interval: Interval, symbols: Sequence[str]) -> list[Reached]:
    """How far each of `symbols` is stored; those that are not in the universe are left out."""
    async with database.connection() as connection:
        rows = await connection.fetch(_REACHED.format(table=candle_table(interval)), interval, symbols)
    return [Reached(*row) for row in rows]


async def of_each_interval(database: Database, symbol: str) -> list[NewestBar]:
    """The last bar of every interval that has some, the shortest interval first."""
    async with database.connection() as connection:
        rows = [row for query, names in _STATEMENTS for row in await connection.fetch(query, symbol, names)]
    found = [NewestBar(Interval(row["interval"]), *tuple(row)[1:]) for row in rows]
    return sorted(found, key=lambda bar: bar.interval.seconds)
