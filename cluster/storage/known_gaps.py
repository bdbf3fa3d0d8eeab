"""Ranges that a provider was asked for and had no bars in, so that they are not asked for all the time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import asyncpg

from cluster.market.intervals import Interval
from cluster.storage.backfill_merge import Span, subtract
from cluster.storage.database import Connection, Database

Cause = Literal["no_data", "provider_hole", "rejected"]
"""The provider had nothing at all in the range of the job; it had the neighbours; its bars were not valid."""

_FIRST_RECHECK = timedelta(hours=1)
_LONGEST_RECHECK = timedelta(days=30)

_TAKE = """
DELETE FROM known_gaps g
USING unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[]) WITH ORDINALITY
    AS asked (symbol, interval, provider, start_ts, end_ts, number)
WHERE g.symbol = asked.symbol AND g.interval = asked.interval AND g.provider = asked.provider
  AND g.start_ts < asked.end_ts AND g.end_ts > asked.start_ts
RETURNING asked.number, g.start_ts, g.end_ts, g.cause, g.times_seen, g.seen_at, g.recheck_at
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


@dataclass(frozen=True, slots=True)
class Asked:
    """A provider was asked for all bars of `span`, and `holes` did not come."""

    symbol: str
    interval: Interval
    provider: str
    span: Span
    holes: Sequence[Hole]


async def record(
    connection: Connection, symbol: str, interval: Interval, provider: str, asked: Span, holes: Sequence[Hole]
) -> None:
    """`record_many` of one."""
    await record_many(connection, [Asked(symbol, interval, provider, asked, holes)])


async def record_many(connection: Connection, asked: Sequence[Asked]) -> None:
    """From now on exactly their holes are known to be empty in what was asked for; at least one is given.

    What was known there before and has bars now is forgotten; what lies outside stays. Of one symbol,
    interval and provider at most one may be given.
    """
    keys = [(each.symbol, str(each.interval), each.provider) for each in asked]
    columns = zip(*((*key, *each.span) for key, each in zip(keys, asked, strict=True)), strict=True)
    known: dict[int, list[asyncpg.Record]] = defaultdict(list)
    for row in await connection.fetch(_TAKE, *map(list, columns)):
        known[row["number"] - 1].append(row)
    rows = [
        (*keys[number], *rest)
        for number, each in enumerate(asked)
        for rest in _kept(each, known.get(number, []))
    ]
    if rows:
        await connection.executemany(_KEEP, rows)


def _kept(asked: Asked, before: Sequence[asyncpg.Record]) -> Iterator[tuple[object, ...]]:
    """Range, cause, how often and when seen, when to look again, or after how long."""
    for row in before:
        for rest in subtract(Span(row["start_ts"], row["end_ts"]), [asked.span]):
            yield *rest, row["cause"], row["times_seen"], row["seen_at"], row["recheck_at"], None
    for hole in asked.holes:
        seen = [row["times_seen"] for row in before if _overlap(row["start_ts"], row["end_ts"], hole.span)]
        times = max(seen, default=0) + 1
        yield *hole.span, hole.cause, times, None, None, recheck_after(times)


async def to_skip(
    database: Database, symbol: str, interval: Interval, wanted: Span, provider: str | None = None
) -> list[Span]:
    """Known gaps in `wanted` that are not to be asked for again yet; of any provider when it is `None`."""
    async with database.connection() as connection:
        rows = await connection.fetch(_NOT_YET, symbol, str(interval), *wanted, provider)
    return [Span(row["start_ts"], row["end_ts"]) for row in rows]


def _overlap(start: datetime, end: datetime, span: Span) -> bool:
    return start < span.end and span.start < end
