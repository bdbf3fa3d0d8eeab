"""Ranges that a provider was asked for and had no bars in, so that they are not asked for all the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cluster.market.intervals import Interval
from cluster.storage.backfill_merge import Span, subtract
from cluster.storage.database import Connection, Database

Cause = Literal["no_data", "provider_hole", "rejected"]
"""The provider had nothing at all in the range of the job; it had the neighbours; its bars were not valid."""

_FIRST_RECHECK = timedelta(hours=1)
_LONGEST_RECHECK = timedelta(days=30)

_TAKE = """
DELETE FROM known_gaps
WHERE symbol = $1 AND interval = $2 AND provider = $3 AND start_ts < $5 AND end_ts > $4
RETURNING start_ts, end_ts, cause, times_seen, seen_at, recheck_at
"""

_KEEP = """
INSERT INTO known_gaps (symbol, interval, provider, start_ts, end_ts, cause, times_seen, seen_at, recheck_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce($8, now()), coalesce($9, now() + $10::interval))
ON CONFLICT (symbol, interval, provider, start_ts) DO UPDATE
SET end_ts = greatest(known_gaps.end_ts, EXCLUDED.end_ts), cause = EXCLUDED.cause,
    times_seen = EXCLUDED.times_seen, seen_at = EXCLUDED.seen_at, recheck_at = EXCLUDED.recheck_at
"""

_NOT_YET = """
SELECT start_ts, end_ts FROM known_gaps
WHERE symbol = $1 AND interval = $2 AND start_ts < $4 AND end_ts > $3 AND recheck_at > now()
  AND ($5::text IS NULL OR provider = $5)
ORDER BY start_ts
"""


@dataclass(frozen=True, slots=True)
class Hole:
    """Expected bars that did not come."""

    span: Span
    cause: Cause


def recheck_after(times_seen: int) -> timedelta:
    """How long a hole seen `times_seen` times is left alone: an hour, then four times longer each time."""
    return min(_LONGEST_RECHECK, _FIRST_RECHECK * int(4 ** min(times_seen - 1, 10)))


async def record(
    connection: Connection, symbol: str, interval: Interval, provider: str, asked: Span, holes: Sequence[Hole]
) -> None:
    """After `provider` was asked for `asked`, exactly `holes` are known to be empty in it.

    What was known there before and has bars now is forgotten; what lies outside of `asked` stays.
    """
    key = (symbol, str(interval), provider)
    before = await connection.fetch(_TAKE, *key, *asked)
    rows: list[tuple[object, ...]] = [
        (*key, *rest, row["cause"], row["times_seen"], row["seen_at"], row["recheck_at"], None)
        for row in before
        for rest in subtract(Span(row["start_ts"], row["end_ts"]), [asked])
    ]
    for hole in holes:
        seen = [row["times_seen"] for row in before if _overlap(row["start_ts"], row["end_ts"], hole.span)]
        times = max(seen, default=0) + 1
        rows.append((*key, *hole.span, hole.cause, times, None, None, recheck_after(times)))
    if rows:
        await connection.executemany(_KEEP, rows)


async def to_skip(
    database: Database, symbol: str, interval: Interval, wanted: Span, provider: str | None = None
) -> list[Span]:
    """Known gaps in `wanted` that are not to be asked for again yet; of any provider when it is `None`."""
    async with database.connection() as connection:
        rows = await connection.fetch(_NOT_YET, symbol, str(interval), *wanted, provider)
    return [Span(row["start_ts"], row["end_ts"]) for row in rows]


def _overlap(start: datetime, end: datetime, span: Span) -> bool:
    return start < span.end and span.start < end
