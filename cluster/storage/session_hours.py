"""Where the hours of an exchange begin, kept in the database for the rollups of an hour."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime

import numpy as np

from cluster import logs
from cluster.errors import InputError
from cluster.market import calendars
from cluster.market.instants import Instants, to_moment
from cluster.storage import calendar_overrides
from cluster.storage.database import Connection, Database

log = logs.get(__name__)

_FIRST_YEAR = 2000  # before, hours are those of UTC
_CUTS = """
INSERT INTO session_cuts AS old (calendar, day, cuts)
SELECT $1, day, array_agg(DISTINCT cut ORDER BY cut)
FROM unnest($2::date[], $3::timestamptz[]) AS every (day, cut) GROUP BY day
ON CONFLICT (calendar, day) DO UPDATE SET cuts = EXCLUDED.cuts WHERE old.cuts <> EXCLUDED.cuts
"""
_NO_CUTS = "DELETE FROM session_cuts WHERE calendar = $1 AND NOT day = ANY($2::date[])"


async def align(database: Database, now: datetime) -> None:
    """Note where the sessions of the universe's calendars begin and end, so that hours begin with them."""
    await calendar_overrides.refresh(database)
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT DISTINCT calendar FROM symbol_universe")
        for name in sorted(row["calendar"] for row in rows):
            if name == calendars.ALWAYS_OPEN:
                continue
            try:
                await _align(connection, name, now)
            except InputError as error:  # one wrong calendar in the universe is no reason to stop all upkeep
                log.error("calendar_unknown", calendar=name, reason=str(error))


async def _align(connection: Connection, calendar: str, now: datetime) -> None:
    days, cuts = await asyncio.to_thread(_cuts, calendar, now)
    async with connection.transaction():
        await connection.execute(_CUTS, calendar, days, cuts)
        await connection.execute(_NO_CUTS, calendar, days)


def _cuts(calendar: str, now: datetime) -> tuple[list[date], list[datetime]]:
    first = max(_FIRST_YEAR, calendars.first_year(calendar))
    return session_cuts(
        calendar, datetime(first, 1, 1, tzinfo=UTC), datetime(now.year + 1, 12, 31, tzinfo=UTC)
    )


def session_cuts(calendar: str, start: datetime, end: datetime) -> tuple[list[date], list[datetime]]:
    """Where hours begin anew, each with its UTC day, for the sessions that open in [start, end).

    The first cut of a day is its beginning, or the hour before it that a session over midnight began.
    """
    known = calendars.sessions(calendar, start, end)
    openings = np.sort(np.concatenate([known.opens, _given(known.break_ends)]))
    endings = np.sort(np.concatenate([known.closes, _given(known.break_starts)]))
    cuts = np.concatenate([openings, endings])
    days = cuts.astype("datetime64[D]")
    midnights = np.unique(days).astype("datetime64[us]")
    begun = np.searchsorted(openings, midnights, "right")
    is_open = begun > np.searchsorted(endings, midnights, "right")
    into_hour = (midnights - openings[np.maximum(begun - 1, 0)]) % np.timedelta64(3_600_000_000, "us")
    beginnings = np.where(is_open, midnights - into_hour, midnights)
    every_day = np.concatenate([days, np.unique(days)]).tolist()
    return every_day, [to_moment(cut) for cut in np.concatenate([cuts, beginnings])]


def _given(moments: Instants) -> Instants:
    return moments[~np.isnat(moments)]
