"""Metrics that are read from the database when somebody looks: queue depth and age, dead jobs, freshness."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from prometheus_client.core import Metric

from cluster.backfill import gap_level
from cluster.clock import SystemClock
from cluster.market.intervals import Interval
from cluster.metrics import state_family
from cluster.storage import sweeps
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database

_FRESHNESS = """
SELECT tier, of.interval, max(extract(epoch FROM now() - newest.ts))::float8 AS age_s
FROM symbol_universe
CROSS JOIN unnest($1::text[]) AS of (interval)
CROSS JOIN LATERAL (
    SELECT ts FROM {table} AS bar
    WHERE bar.symbol = symbol_universe.symbol AND bar.interval = of.interval ORDER BY ts DESC LIMIT 1
) AS newest
WHERE active GROUP BY tier, of.interval
"""
_STATEMENTS = tuple(
    (_FRESHNESS.format(table=table), [str(i) for i in Interval if i.is_daily == daily])
    for table, daily in (("candles_daily", True), ("candles_intraday", False))
)


async def read(database: Database) -> list[Metric]:
    """All state metrics of the database; `data_freshness_seconds` is that of the stalest active symbol."""
    queue = BackfillQueue(database)
    depth = await queue.depth()
    return [
        state_family("backfill_queue_depth", (((tier,), count) for tier, (count, _) in depth.items())),
        state_family("backfill_oldest_age_seconds", (((tier,), age_s) for tier, (_, age_s) in depth.items())),
        state_family("dlq_depth", [((), await queue.dead_count())]),
        state_family("ingestion_lag_seconds", await _ingestion_lag(database)),
        state_family("data_freshness_seconds", await _freshness(database)),
        *await _gap_levels(database),
    ]


async def _gap_levels(database: Database) -> list[Metric]:
    levels = await gap_level.read(database, SystemClock().now())
    return [
        state_family("slo_gap_violation_rate", levels.violation_rate.items()),
        state_family("gaps_open", levels.gaps.items()),
        state_family("gap_scan_age_seconds", (((interval,), age) for interval, age in levels.age_s.items())),
    ]


async def _freshness(database: Database) -> Iterable[tuple[tuple[str, str], float]]:
    async with database.connection() as connection:
        rows = [row for statement in _STATEMENTS for row in await connection.fetch(*statement)]
    return [((row["tier"], row["interval"]), row["age_s"]) for row in rows]


async def _ingestion_lag(database: Database) -> Iterable[tuple[tuple[str, str], float]]:
    async with database.connection() as connection:
        now = await connection.fetchval("SELECT now()")
    lags: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    for each in await sweeps.last(database):
        lags[each.tier, each.interval].append(each.lag_s(each.lag_p99_s, now))
    slowest = ((labels, sweeps.slowest(some)) for labels, some in lags.items())
    return [(labels, lag_s) for labels, lag_s in slowest if lag_s is not None]
