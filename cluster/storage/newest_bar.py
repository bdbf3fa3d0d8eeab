"""The newest bar of a symbol over all intervals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cluster.market.intervals import Interval
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


async def of_each_interval(database: Database, symbol: str) -> list[NewestBar]:
    """The last bar of every interval that has some, the shortest interval first."""
    async with database.connection() as connection:
        rows = [row for query, names in _STATEMENTS for row in await connection.fetch(query, symbol, names)]
    found = [NewestBar(Interval(row["interval"]), *tuple(row)[1:]) for row in rows]
    return sorted(found, key=lambda bar: bar.interval.seconds)
