"""The last look of the collectors for the bars of each tier and interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.storage.database import Database


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one look of one shard came to; times are those of the collector's clock."""

    tier: Tier
    interval: Interval
    shard: int
    cadence_s: float
    expected_lag_s: float
    """The longest time from the close of a bar to the look that finds it final."""
    started_at: datetime
    finished_at: datetime
    next_run_at: datetime
    symbols: int
    idle: int
    """Symbols of which nothing was due."""
    unserved: int
    """Symbols that no provider gives."""
    failed: int
    """Symbols for which all providers that were asked failed."""
    bars: int
    """Inserted or changed."""
    lag_p50_s: float | None
    """Over the symbols: from the close of the newest bar to its commit; for one that lacks it, up to now."""
    lag_p99_s: float | None

    def lag_s(self, measured_s: float | None, now: datetime) -> float | None:
        """`measured_s`, and what has passed since the next look was due; `None` when neither is known."""
        overdue_s = (now - self.next_run_at).total_seconds()
        if overdue_s <= 0:
            return measured_s
        return (measured_s or 0.0) + overdue_s


_NAMES = tuple(field.name for field in fields(Sweep))
_COLUMNS = ", ".join(_NAMES)
_RECORD = f"""
INSERT INTO collection_sweeps ({_COLUMNS})
VALUES ({", ".join(f"${place}" for place in range(1, len(_NAMES) + 1))})
ON CONFLICT (tier, interval, shard) DO UPDATE
SET ({_COLUMNS}) = ROW ({", ".join(f"excluded.{name}" for name in _NAMES)})
WHERE excluded.started_at >= collection_sweeps.started_at OR collection_sweeps.started_at > now()
"""  # noqa: S608 (column names of our own)
_FORGET = """
DELETE FROM collection_sweeps WHERE shard >= $2
    OR (shard = $1 AND (tier, interval) NOT IN (SELECT * FROM unnest($3::text[], $4::text[])))
"""
_LAST = f"SELECT {_COLUMNS} FROM collection_sweeps ORDER BY tier, interval, shard"  # noqa: S608


def slowest(lags_s: Iterable[float | None]) -> float | None:
    """The longest lag that is known."""
    return max((lag_s for lag_s in lags_s if lag_s is not None), default=None)


async def record(database: Database, sweep: Sweep) -> None:
    """Keep `sweep` as the last one of its tier, interval and shard, unless one that began later is kept.

    One of the future does not count: the clock of its collector was wrong.
    """
    async with database.connection() as connection:
        await connection.execute(_RECORD, *(getattr(sweep, name) for name in _NAMES))


async def forget_others(
    database: Database, shard: int, shards: int, collected: Sequence[tuple[Tier, Interval]]
) -> None:
    """Drop what is no more collected, of this shard, and of shards that there are no more."""
    tiers, intervals = [tier for tier, _ in collected], [str(interval) for _, interval in collected]
    async with database.connection() as connection:
        await connection.execute(_FORGET, shard, shards, tiers, intervals)


async def last(database: Database) -> Sequence[Sweep]:
    """The last looks by tier, interval and shard."""
    async with database.connection() as connection:
        rows = await connection.fetch(_LAST)
    return [Sweep(**{**row, "interval": Interval(row["interval"])}) for row in rows]
