"""How far stored bars keep the service level: no gap longer than twice the interval.

Out of the tables of the gap watch; no bar is looked at.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from cluster.market import calendars
from cluster.market.gap_classes import COUNTING
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.storage import calendar_overrides
from cluster.storage.database import Database

LONGEST_BARS = 2
"""A gap of so many bars is no violation yet."""
WINDOWS = dict.fromkeys(Interval, timedelta(days=1)) | {Interval.D1: timedelta(days=30)}
"""The last day; of daily bars the last 30."""

# Symbols of one calendar that are compared up to the same moment are told together.
_DUE = """
SELECT tier, w.interval, w.calendar, greatest(expected_from, $1::timestamptz - span) AS since, scanned_to,
       count(*) AS symbols
FROM gap_watermarks AS w JOIN symbol_universe USING (symbol)
JOIN unnest($2::text[], $3::interval[]) AS one (interval, span) ON one.interval = w.interval
GROUP BY 1, 2, 3, 4, 5
"""
_LOST = """
SELECT tier, g.interval, w.calendar, greatest(start_ts, expected_from, $1::timestamptz - span) AS since,
       end_ts, count(*) AS symbols
FROM gaps AS g JOIN gap_watermarks AS w USING (symbol, interval) JOIN symbol_universe USING (symbol)
JOIN unnest($2::text[], $3::interval[]) AS one (interval, span) ON one.interval = g.interval
WHERE cause = ANY($4::text[]) AND missing > $5 AND end_ts > $1::timestamptz - span
GROUP BY 1, 2, 3, 4, 5
"""
_OPEN = """
SELECT tier, interval, cause, count(*) AS gaps FROM gaps JOIN symbol_universe USING (symbol) GROUP BY 1, 2, 3
"""
_AGE = """
SELECT interval, extract(epoch FROM $1::timestamptz - min(scanned_to))::float8 AS age_s
FROM gap_watermarks GROUP BY interval
"""


class _Range(NamedTuple):
    """Bars that are expected of so many symbols of one calendar."""

    tier: Tier
    interval: str
    calendar: str
    start: datetime
    end: datetime
    symbols: int


class Levels(NamedTuple):
    """What the gap watch tells of this moment."""

    violation_rate: Mapping[tuple[Tier, Interval], float]
    """Share of the bars due in the window that are missing in gaps of more than `LONGEST_BARS` bars.

    0 to 1. Gaps without trades, while the venue was down, and that cannot be filled do not count; closed
    hours are not due.
    """
    gaps: Mapping[tuple[Tier, Interval, str], int]
    """Gaps by cause."""
    age_s: Mapping[Interval, float]
    """Seconds since the bars up to which all symbols were compared."""


async def read(database: Database, now: datetime) -> Levels:
    """The levels at `now`."""
    await calendar_overrides.refresh(database)
    windows = now, list(WINDOWS), list(WINDOWS.values())
    async with database.connection() as connection:
        due = [_Range(*row) for row in await connection.fetch(_DUE, *windows)]
        lost = [_Range(*row) for row in await connection.fetch(_LOST, *windows, COUNTING, LONGEST_BARS)]
        gaps = {tuple(row)[:3]: row["gaps"] for row in await connection.fetch(_OPEN)}
        age_s = {Interval(row["interval"]): row["age_s"] for row in await connection.fetch(_AGE, now)}
    return Levels(await asyncio.to_thread(_rates, due, lost), gaps, age_s)


def _rates(due: list[_Range], lost: list[_Range]) -> dict[tuple[Tier, Interval], float]:
    expected, missing = _bars(due), _bars(lost)
    return {level: missing.get(level, 0) / count if count else 0.0 for level, count in expected.items()}


def _bars(ranges: list[_Range]) -> dict[tuple[Tier, Interval], int]:
    found: dict[tuple[Tier, Interval], int] = defaultdict(int)
    for each in ranges:
        interval, end = Interval(each.interval), max(each.start, each.end)
        opens = calendars.expected_opens(each.calendar, interval, each.start, end)
        found[each.tier, interval] += each.symbols * len(opens)
    return found
