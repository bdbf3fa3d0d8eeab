"""Bars of 5 minutes and of an hour made of minutes: `candles_5m` and `candles_1h`, brought up to date.

Everything before the current UTC day is kept, so that it outlives its minutes; changes of older minutes are
taken over by `refresh`. With native partitions triggers note what was changed; TimescaleDB notes it itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg

from cluster.market.intervals import Interval
from cluster.storage.database import Connection, Database

SETTLED_AFTER = timedelta(minutes=10)
"""A day is kept when it has been over for so long: most bars are in, and it need not be made twice."""

_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)
_BATCH = 500  # symbols, or noted changes, in one transaction
_WINDOW = timedelta(days=28)  # of a continuous aggregate, refreshed in one transaction
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)

_MARK_LOCK = 0x726F6C6C  # "roll": see note_changed_minutes
_WORK_LOCK = 0x6D616B65  # "make": one at a time
_NOTED = "SELECT id, symbol, first, last FROM rollup_dirty"
_TAKE = """
DELETE FROM rollup_dirty WHERE id IN (SELECT id FROM rollup_dirty ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING symbol, first, last
"""
_STATE = "SELECT kept_from, marked_until, rolled_until FROM rollup_state"
_FIRST = """
SELECT date_trunc('day', min(first), 'UTC') FROM (
    SELECT (SELECT min(ts) FROM candles_intraday WHERE interval = '1m' AND symbol = every.symbol) AS first
    FROM unnest($1::text[]) AS every (symbol)
) AS firsts
"""
# One look at the index for each symbol; the bounds are there to leave out partitions.
_SYMBOLS = """
WITH RECURSIVE found AS (
    (SELECT symbol FROM candles_intraday WHERE interval = '1m' AND ts >= $1 AND ts < $2
     ORDER BY symbol LIMIT 1)
    UNION ALL
    SELECT (SELECT symbol FROM candles_intraday
            WHERE interval = '1m' AND ts >= $1 AND ts < $2 AND symbol > found.symbol ORDER BY symbol LIMIT 1)
    FROM found WHERE found.symbol IS NOT NULL
)
SELECT symbol FROM found WHERE symbol IS NOT NULL
"""
_CLEAR = """
DELETE FROM {table} AS old
USING unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS wanted (symbol, first, past)
WHERE old.symbol = wanted.symbol AND old.ts >= wanted.first AND old.ts < wanted.past
"""
_CLEAR_ALL = "DELETE FROM {table} WHERE ts >= $1 AND ts < $2"
# A symbol at a time: a given name gets through the grouping to the index, that of a joined row does not.
_FILL = "INSERT INTO {table} SELECT * FROM {function}($2, $3) WHERE symbol = $1"
_TABLES = (("rollup_5m", "minutes_as_5m", timedelta(minutes=5)), ("rollup_1h", "minutes_as_1h", _DAY))
_MARK = "UPDATE rollup_state SET marked_until = greatest(marked_until, $1)"
_ROLLED = "UPDATE rollup_state SET rolled_until = greatest(rolled_until, $1)"
_OLDEST_CHUNK = """
SELECT min(range_start) FROM timescaledb_information.chunks
WHERE (hypertable_schema, hypertable_name) IN (
    SELECT current_schema(), 'candles_intraday'
    UNION ALL
    SELECT materialization_hypertable_schema, materialization_hypertable_name
    FROM timescaledb_information.continuous_aggregates WHERE view_schema = current_schema()
)
"""
_REFRESH = """
CALL refresh_continuous_aggregate('{view}', timestamptz '{first}', timestamptz '{past}', force => {force})
"""


class Range(NamedTuple):
    """Changed minutes of one symbol, or of all when it is None; half-open."""

    symbol: str | None
    first: datetime
    past: datetime


class State(NamedTuple):
    """Where the rollups are; `datetime.min` with a time zone stands for the beginning of time."""

    kept_from: datetime
    marked_until: datetime
    rolled_until: datetime


async def storage(database: Database) -> str:
    """`native` or `timescale`."""
    async with database.connection() as connection:
        return str(await connection.fetchval("SELECT candle_storage()"))


async def state(connection: Connection) -> State:
    """Where the rollups are."""
    (row,) = await connection.fetch(_STATE)
    return State(*(moment.replace(tzinfo=UTC) for moment in row))


async def given_up(connection: Connection, interval: Interval) -> datetime:
    """Bars before were deleted for their age; the beginning of time when none were."""
    return (
        (await state(connection)).kept_from if interval is Interval.M1 else datetime.min.replace(tzinfo=UTC)
    )


async def refresh(database: Database, now: datetime) -> None:
    """Bring the kept rollups up to date with all minutes committed before the call.

    Afterwards both views answer as if they were made of the minutes at this moment, except for minutes that
    were given up. Safe to be called by several at once.
    """
    until = _day(now - SETTLED_AFTER)
    if await storage(database) == "timescale":
        await _refresh_aggregates(database, until)
    else:
        await _advance(database, until)
        while await _settle(database):
            pass


async def _advance(database: Database, until: datetime) -> None:
    """Keep the days before `until` that are not yet kept, one after the other."""
    async with database.transaction() as connection:
        now = await state(connection)
        if now.rolled_until >= until:
            return
        # Writers who saw the old mark end before this lock is given; those who come later see the new one.
        await connection.execute("SET LOCAL lock_timeout = '10s'")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _MARK_LOCK)
        await connection.execute(_MARK, until)
    day = await _first_day(database, now)
    while day is not None and day < until:
        async with database.connection() as connection:
            symbols = await _symbols(connection, day, day + _DAY)
        for start in range(0, len(symbols), _BATCH):
            async with database.transaction() as connection:
                await _make(
                    connection, [Range(one, day, day + _DAY) for one in symbols[start : start + _BATCH]]
                )
        day += _DAY
        await _rolled(database, day)
    await _rolled(database, until)


async def _first_day(database: Database, now: State) -> datetime | None:
    if now.rolled_until > _EARLIEST:
        return now.rolled_until
    async with database.connection() as connection:
        symbols = await _symbols(connection, _EARLIEST, _LATEST)
        first: datetime | None = await connection.fetchval(_FIRST, symbols)
    return first


async def _symbols(connection: Connection, first: datetime, past: datetime) -> list[str]:
    # Whole months: within one a symbol is found at its first bar, whatever the time of that.
    starts = max(first, _EARLIEST).replace(day=1)
    ends = min(past + timedelta(days=31), _LATEST).replace(day=1)
    return [row["symbol"] for row in await connection.fetch(_SYMBOLS, starts, ends)]


async def _rolled(database: Database, until: datetime) -> None:
    async with database.connection() as connection:
        await connection.execute(_ROLLED, until)


async def _settle(database: Database) -> bool:
    """Take over a batch of noted changes; False when there was none."""
    async with database.transaction() as connection:
        taken = await connection.fetch(_TAKE, _BATCH)
        now = await state(connection)
        ranges = [_clipped(row, now.kept_from, now.marked_until) for row in taken]
        await _make(connection, [each for each in ranges if each.first < each.past])
        return bool(taken)


def _clipped(row: asyncpg.Record, earliest: datetime, latest: datetime) -> Range:
    first, last = (row[name].replace(tzinfo=UTC) for name in ("first", "last"))
    return Range(row["symbol"], max(first, earliest), min(min(last, _LATEST) + _TICK, latest))


async def _make(connection: Connection, ranges: list[Range]) -> None:
    """Make the rollups that have a minute in `ranges` anew."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _WORK_LOCK)
    everything = [each for each in ranges if each.symbol is None]
    single = [each for each in ranges if each.symbol is not None]
    for each in everything:
        for table, _, step in _TABLES:
            wide = _widened(each, step)
            await connection.execute(_CLEAR_ALL.format(table=table), wide.first, wide.past)
        symbols = await _symbols(connection, each.first, each.past)
        single += [Range(symbol, each.first, each.past) for symbol in symbols]
    for table, function, step in _TABLES:
        whole = _merged(_widened(one, step) for one in single)
        if whole:
            columns = [one.symbol for one in whole], [one.first for one in whole], [one.past for one in whole]
            await connection.execute(_CLEAR.format(table=table), *columns)
            await connection.executemany(
                _FILL.format(table=table, function=function), list(zip(*columns, strict=True))
            )


def _widened(each: Range, step: timedelta) -> Range:
    """To whole buckets."""
    first = each.first - (each.first - _EARLIEST) % step if each.first > _EARLIEST else each.first
    past = each.past + (_EARLIEST - each.past) % step if each.past < _LATEST else each.past
    return Range(each.symbol, first, past)


def _merged(ranges: Iterable[Range]) -> list[Range]:
    """The same minutes without overlap, so that no bucket is made twice."""
    merged: list[Range] = []
    for each in sorted(ranges, key=lambda one: (one.symbol or "", one.first)):
        last = merged[-1] if merged else None
        if last is not None and last.symbol == each.symbol and each.first <= last.past:
            merged[-1] = last._replace(past=max(last.past, each.past))
        else:
            merged.append(each)
    return merged


async def _refresh_aggregates(database: Database, until: datetime) -> None:
    async with database.connection() as connection:
        # Held by the session: a CALL that refreshes must not be in a transaction.
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _WORK_LOCK):
            return  # another cluster is at it
        try:
            await _refresh_in_turn(connection, until)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", _WORK_LOCK)


async def _refresh_in_turn(connection: Connection, until: datetime) -> None:
    await connection.execute(_MARK, until)
    noted = await connection.fetch(_NOTED)
    kept_from = (await state(connection)).kept_from
    clipped = [_clipped(row, kept_from, until)._replace(symbol=None) for row in noted]
    for each in _merged(_widened(each, _DAY) for each in clipped if each.first < each.past):
        await _refresh_between(connection, each.first, each.past, force=True)
    await connection.execute("DELETE FROM rollup_dirty WHERE id = ANY($1)", [row["id"] for row in noted])
    await _refresh_between(connection, kept_from, until, force=False)
    await connection.execute(_ROLLED, until)


async def _refresh_between(connection: Connection, first: datetime, past: datetime, *, force: bool) -> None:
    oldest: datetime | None = await connection.fetchval(_OLDEST_CHUNK)
    start = max(first, _day(oldest)) if oldest else past
    while start < past:
        end = min(start + _WINDOW, past)
        for view in ("rolled_5m", "rolled_1h"):
            await connection.execute(_REFRESH.format(view=view, first=start, past=end, force=force))
        start = end


def _day(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
