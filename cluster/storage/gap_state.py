"""What the gap watch knows from scan to scan: watermarks, ranges to be compared again, the gaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from cluster.market.gap_classes import Answer, GapClass
from cluster.market.intervals import Interval
from cluster.market.symbols import AssetType, Tier
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import span_of
from cluster.storage.bar_windows import candle_table
from cluster.storage.database import Connection

_LOCK_CLASS = 0x67617073  # "gaps"
_TRY_LOCK = "SELECT pg_try_advisory_lock($1, hashtext($2))"
_UNLOCK = "SELECT pg_advisory_unlock($1, hashtext($2))"

_FORGET = """
WITH unwatched AS (DELETE FROM gap_watermarks WHERE interval = $1 AND symbol = ANY($2::text[]))
DELETE FROM gaps WHERE interval = $1 AND symbol = ANY($2::text[])
"""
_FORGET_INTERVALS = (
    "DELETE FROM gaps WHERE interval <> ALL($1::text[])",
    "DELETE FROM gap_watermarks WHERE interval <> ALL($1::text[])",
    "DELETE FROM gap_dirty_ranges WHERE interval <> ALL($1::text[])",
)
# Without a calendar: symbols that are not watched any more. One join tells both; each scan asks.
_GROUPS = """
SELECT calendar, scanned_to, array_agg(symbol ORDER BY symbol) AS symbols
FROM (
    SELECT symbol, u.calendar,
           CASE WHEN w.calendar = u.calendar AND full_at > $3 THEN scanned_to END AS scanned_to
    FROM (SELECT symbol, calendar FROM symbol_universe WHERE active AND tier = ANY($2::text[])) AS u
    FULL JOIN (SELECT * FROM gap_watermarks WHERE interval = $1) AS w USING (symbol)
) AS each
GROUP BY calendar, scanned_to
"""
_STARTS = """
SELECT u.symbol, least(w.expected_from, oldest.ts) AS since, u.created_at
FROM symbol_universe AS u
LEFT JOIN gap_watermarks AS w ON w.symbol = u.symbol AND w.interval = $1
LEFT JOIN LATERAL (
    SELECT ts FROM {table} AS bar WHERE bar.symbol = u.symbol AND interval = $1 ORDER BY ts LIMIT 1
) AS oldest ON true
WHERE u.symbol = ANY($2::text[])
"""
_DIRTY = "SELECT id, symbol, calendar, start_ts, end_ts FROM gap_dirty_ranges WHERE interval = $1"
_CLEAN = "DELETE FROM gap_dirty_ranges WHERE id = ANY($1::bigint[])"
_ALL_ANEW = "UPDATE gap_watermarks SET full_at = '-infinity' WHERE interval = $1"
_IS_OLDER = "SELECT EXISTS (SELECT FROM gap_watermarks WHERE interval = $1 AND expected_from < $2)"
# A gap over the edge is told anew when everything of its symbol is compared.
_GIVE_UP = (
    """
    UPDATE gap_watermarks AS w SET full_at = '-infinity'
    WHERE interval = $1 AND EXISTS (
        SELECT FROM gaps AS g
        WHERE g.symbol = w.symbol AND g.interval = $1 AND g.start_ts < $2 AND g.end_ts > $2)
    """,
    "DELETE FROM gaps WHERE interval = $1 AND end_ts <= $2",
    "UPDATE gap_watermarks SET expected_from = $2 WHERE interval = $1 AND expected_from < $2",
)
_OF_CALENDAR = """
SELECT symbol FROM gap_watermarks WHERE interval = $1 AND calendar = $2 ORDER BY symbol
"""
_FROM = """
SELECT symbol, calendar, expected_from, scanned_to FROM gap_watermarks
WHERE interval = $1 AND symbol = ANY($2::text[])
"""
# ORDER BY and LIMIT keep the planner to one look into the index a gap, whatever it thinks of the tables.
_ARRIVED = """
SELECT symbol, start_ts, end_ts FROM gaps AS g
CROSS JOIN LATERAL (
    SELECT FROM {table} AS bar
    WHERE bar.symbol = g.symbol AND bar.interval = $1 AND ts >= g.start_ts AND ts < g.end_ts AND is_final
    ORDER BY ts LIMIT 1
) AS first
WHERE interval = $1
"""
_DUE = """
SELECT DISTINCT g.symbol FROM gaps AS g
WHERE interval = $1 AND (next_check_at <= $2 OR EXISTS (
    SELECT FROM known_gaps AS k
    WHERE k.symbol = g.symbol AND k.interval = $1 AND k.start_ts < g.end_ts AND k.end_ts > g.start_ts
      AND k.seen_at > g.checked_at))
"""
_ROWS = """
SELECT symbol, start_ts, end_ts, missing, cause, evidence, found_at, checked_at, tries, next_check_at
FROM gaps WHERE interval = $1 AND symbol = ANY($2::text[]) ORDER BY symbol, start_ts
"""
_ANSWERS = """
SELECT symbol, start_ts, end_ts, provider, cause, times_seen, recheck_at FROM known_gaps
WHERE interval = $1 AND symbol = ANY($2::text[])
"""
# Who was asked by name and gave up is not in the way of others.
_JOBS = """
SELECT symbol, start_ts, end_ts, CASE state WHEN 'dead' THEN provider END AS failed FROM backfill_jobs
WHERE interval = $1 AND symbol = ANY($2::text[])
  AND (state IN ('ready', 'leased') OR (state = 'dead' AND finished_at > now() - $3::interval))
"""
_WATCHED = (
    "SELECT symbol, calendar, tier, exchange, asset_type FROM symbol_universe WHERE symbol = ANY($1::text[])"
)
# Every watched symbol of the exchange must lack it after somebody was asked: our own outage is not one of it.
_VENUES = """
SELECT exchange, range_intersect_agg(lack) AS lack FROM (
    SELECT exchange, u.symbol,
           range_agg(tstzrange(start_ts, end_ts)) FILTER (WHERE start_ts IS NOT NULL) AS lack
    FROM symbol_universe AS u LEFT JOIN gaps AS g ON g.symbol = u.symbol AND g.interval = $1
        AND g.cause IN ('no_data', 'provider_hole', 'no_trades', 'venue_down')
    WHERE active AND tier = ANY($2::text[]) GROUP BY exchange, u.symbol) AS of_symbol
GROUP BY exchange HAVING count(*) >= $3 AND bool_and(lack IS NOT NULL)
"""
_REMOVE = "DELETE FROM gaps WHERE interval = $1 AND symbol = ANY($2::text[])"
_PUT = """
INSERT INTO gaps (interval, symbol, start_ts, end_ts, missing, cause, evidence, found_at, checked_at, tries,
                  next_check_at)
SELECT $1, * FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[], $5::int[], $6::text[], $7::text[],
                         $8::timestamptz[], $9::timestamptz[], $10::int[], $11::timestamptz[])
"""
_MOVE = "UPDATE gap_watermarks SET scanned_to = $3 WHERE interval = $1 AND symbol = ANY($2::text[])"
_MARK = """
INSERT INTO gap_watermarks (interval, symbol, calendar, expected_from, scanned_to, full_at)
SELECT $1, symbol, $3, since, $5, $6 FROM unnest($2::text[], $4::timestamptz[]) AS one (symbol, since)
ON CONFLICT (symbol, interval) DO UPDATE
SET calendar = EXCLUDED.calendar, expected_from = EXCLUDED.expected_from, scanned_to = EXCLUDED.scanned_to,
    full_at = EXCLUDED.full_at
"""
_WAITING = """
SELECT id, start_ts, end_ts FROM backfill_jobs AS j
WHERE interval = $1 AND state = 'ready' AND start_ts < $4 AND end_ts > $3
  AND symbol IN (SELECT symbol FROM symbol_universe WHERE calendar = $2)
"""
_DROP_JOBS = """
UPDATE backfill_jobs SET state = 'done', rows_written = 0, finished_at = clock_timestamp(),
       reason = 'the calendar expects no bars here any more'
WHERE id = ANY($1::bigint[]) AND state = 'ready'
"""


class Group(NamedTuple):
    """Symbols of one calendar that were compared up to the same moment."""

    calendar: str
    scanned_to: datetime | None
    """`None`: all of their bars are to be compared."""
    symbols: list[str]


class Dirty(NamedTuple):
    """A range to be compared again: of a symbol, of all symbols of a calendar, or of everything."""

    id: int
    symbol: str | None
    calendar: str | None
    span: Span


class Start(NamedTuple):
    """Since when bars of a symbol are expected."""

    since: datetime | None
    """Of the oldest bar ever seen; `None` when there was none."""
    created_at: datetime
    """When the symbol came into the universe."""


class Mark(NamedTuple):
    """What has been compared of a symbol, and with which calendar."""

    calendar: str
    expected_from: datetime
    scanned_to: datetime


class Watched(NamedTuple):
    """What a gap is judged by of its symbol."""

    calendar: str
    tier: Tier
    exchange: str
    asset_type: AssetType


@dataclass(frozen=True, slots=True)
class GapRow:
    """Missing bars that follow each other and are missing for one cause; half-open."""

    start: datetime
    end: datetime
    missing: int
    cause: GapClass
    evidence: str
    found_at: datetime
    checked_at: datetime
    tries: int
    """How often a job was made for it."""
    next_check_at: datetime


async def try_lock(connection: Connection, interval: Interval) -> bool:
    """Be the only one who scans this interval until `unlock`, or the end of the connection."""
    locked: bool = await connection.fetchval(_TRY_LOCK, _LOCK_CLASS, interval)
    return locked


async def unlock(connection: Connection, interval: Interval) -> None:
    """Let others scan."""
    await connection.execute(_UNLOCK, _LOCK_CLASS, interval)


async def forget(connection: Connection, interval: Interval, symbols: Collection[str]) -> None:
    """Drop what is known of these symbols."""
    await connection.execute(_FORGET, interval, symbols)


async def forget_others(connection: Connection, intervals: Collection[Interval]) -> None:
    """Drop what is known of intervals that are not watched any more."""
    for statement in _FORGET_INTERVALS:
        await connection.execute(statement, intervals)


async def groups(
    connection: Connection, interval: Interval, tiers: Collection[Tier], full_since: datetime
) -> tuple[list[Group], list[str]]:
    """All watched symbols; those compared as a whole before `full_since`, or by another calendar, as new.

    And the symbols of which something is known that are not watched any more.
    """
    rows = await connection.fetch(_GROUPS, interval, tiers, full_since)
    watched = [Group(*row) for row in rows if row["calendar"] is not None]
    return watched, [symbol for row in rows if row["calendar"] is None for symbol in row["symbols"]]


async def starts(connection: Connection, interval: Interval, symbols: Sequence[str]) -> dict[str, Start]:
    """Since when bars of these symbols are expected."""
    rows = await connection.fetch(_STARTS.format(table=candle_table(interval)), interval, symbols)
    return {row["symbol"]: Start(row["since"], row["created_at"]) for row in rows}


async def dirty(connection: Connection, interval: Interval) -> list[Dirty]:
    """The ranges to be compared again."""
    rows = await connection.fetch(_DIRTY, interval)
    return [Dirty(row["id"], row["symbol"], row["calendar"], span_of(row)) for row in rows]


async def cleaned(connection: Connection, ranges: Iterable[Dirty]) -> None:
    """These ranges have been compared."""
    if ids := [each.id for each in ranges]:
        await connection.execute(_CLEAN, ids)


async def compare_all(connection: Connection, interval: Interval) -> None:
    """Have everything compared again."""
    await connection.execute(_ALL_ANEW, interval)


async def give_up(connection: Connection, interval: Interval, before: datetime) -> None:
    """Bars that are older are expected no more, whatever was compared."""
    if await connection.fetchval(_IS_OLDER, interval, before):
        async with connection.transaction():
            for statement in _GIVE_UP:
                await connection.execute(statement, interval, before)


async def of_calendar(connection: Connection, interval: Interval, calendar: str) -> list[str]:
    """The symbols that were compared by this calendar."""
    return [row["symbol"] for row in await connection.fetch(_OF_CALENDAR, interval, calendar)]


async def marks(connection: Connection, interval: Interval, symbols: Sequence[str]) -> dict[str, Mark]:
    """How far these symbols are compared; those that never were are left out."""
    if not symbols:
        return {}
    rows = await connection.fetch(_FROM, interval, symbols)
    return {row["symbol"]: Mark(*tuple(row)[1:]) for row in rows}


async def arrived(connection: Connection, interval: Interval) -> list[tuple[str, Span]]:
    """The gaps in which there is a final bar by now, by symbol."""
    rows = await connection.fetch(_ARRIVED.format(table=candle_table(interval)), interval)
    return [(row["symbol"], span_of(row)) for row in rows]


async def due(connection: Connection, interval: Interval, now: datetime) -> list[str]:
    """Symbols with a gap that is to be judged anew."""
    return [row["symbol"] for row in await connection.fetch(_DUE, interval, now)]


async def rows(connection: Connection, interval: Interval, symbols: Sequence[str]) -> dict[str, list[GapRow]]:
    """The gaps of each symbol, oldest first."""
    found: dict[str, list[GapRow]] = defaultdict(list)
    for row in await connection.fetch(_ROWS, interval, symbols):
        found[row["symbol"]].append(GapRow(*tuple(row)[1:]))
    return found


async def answers(
    connection: Connection, interval: Interval, symbols: Sequence[str]
) -> dict[str, list[tuple[Span, Answer]]]:
    """What providers did not have when they were asked, by symbol."""
    found: dict[str, list[tuple[Span, Answer]]] = defaultdict(list)
    for row in await connection.fetch(_ANSWERS, interval, symbols):
        answer = Answer(row["provider"], row["cause"], row["times_seen"], row["recheck_at"])
        found[row["symbol"]].append((span_of(row), answer))
    return found


async def jobs(
    connection: Connection, interval: Interval, symbols: Sequence[str], dead_for: timedelta
) -> dict[str, list[tuple[Span, str | None]]]:
    """Ranges that are in the queue, or were given up less than `dead_for` ago, by symbol.

    With the provider that gave one up when it was asked for by name.
    """
    found: dict[str, list[tuple[Span, str | None]]] = defaultdict(list)
    for row in await connection.fetch(_JOBS, interval, symbols, dead_for):
        found[row["symbol"]].append((span_of(row), row["failed"]))
    return found


async def watched(connection: Connection, symbols: Sequence[str]) -> dict[str, Watched]:
    """What the universe tells of these symbols."""
    rows = await connection.fetch(_WATCHED, symbols)
    return {row["symbol"]: Watched(*tuple(row)[1:]) for row in rows}


async def venues(
    connection: Connection, interval: Interval, tiers: Collection[Tier], at_least: int
) -> dict[str, list[Span]]:
    """Ranges that all watched symbols of an exchange lack, of exchanges with `at_least` so many."""
    rows = await connection.fetch(_VENUES, interval, tiers, at_least)
    return {row["exchange"]: [Span(each.lower, each.upper) for each in row["lack"]] for row in rows}


async def replace(connection: Connection, interval: Interval, found: Mapping[str, Sequence[GapRow]]) -> None:
    """The gaps of these symbols are exactly these."""
    await connection.execute(_REMOVE, interval, list(found))
    flat = [(symbol, row) for symbol, some in found.items() for row in some]
    if flat:
        names = (
            "start",
            "end",
            "missing",
            "cause",
            "evidence",
            "found_at",
            "checked_at",
            "tries",
            "next_check_at",
        )
        columns = [[getattr(row, name) for _, row in flat] for name in names]
        await connection.execute(_PUT, interval, [symbol for symbol, _ in flat], *columns)


async def move(connection: Connection, interval: Interval, symbols: Sequence[str], to: datetime) -> None:
    """These symbols are compared up to `to`."""
    await connection.execute(_MOVE, interval, symbols, to)


async def commit_lazily(connection: Connection) -> None:
    """Let this transaction be lost by a crash of the server right after it, for a commit without waiting."""
    await connection.execute("SET LOCAL synchronous_commit = off")


async def mark(
    connection: Connection,
    interval: Interval,
    calendar: str,
    since: Mapping[str, datetime],
    to: datetime,
    at: datetime,
) -> None:
    """All bars of these symbols since `since` and up to `to` are compared with `calendar`."""
    await connection.execute(_MARK, interval, list(since), calendar, list(since.values()), to, at)


async def waiting_jobs(
    connection: Connection, interval: Interval, calendar: str, span: Span
) -> dict[int, Span]:
    """Ranges of the jobs for symbols of `calendar` that touch `span` and have not begun, by id."""
    return {row["id"]: span_of(row) for row in await connection.fetch(_WAITING, interval, calendar, *span)}


async def drop_jobs(connection: Connection, jobs: Collection[int]) -> None:
    """End these jobs unless they have begun: there is nothing to fetch."""
    await connection.execute(_DROP_JOBS, jobs)
