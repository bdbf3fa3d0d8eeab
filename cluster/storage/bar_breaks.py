"""Where the stored bars of many symbols break off; the database looks at every bar, and sends only breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cluster.market.bars import grid_is_interval
from cluster.market.instants import Instants
from cluster.market.intervals import Interval
from cluster.storage.bar_windows import Windows, candle_table
from cluster.storage.copy_format import decode, microseconds
from cluster.storage.copy_stream import copy_out
from cluster.storage.database import Database

_LANES = 2  # the server works on one core per connection
_OLDEST = """
SELECT symbol, least(oldest.ts, expected_from) AS ts FROM unnest($1::text[]) AS wanted (symbol)
LEFT JOIN LATERAL (
    SELECT ts FROM {table} AS bar WHERE bar.symbol = wanted.symbol AND interval = $2 ORDER BY ts LIMIT 1
) AS oldest ON true
LEFT JOIN (SELECT symbol, expected_from FROM gap_watermarks WHERE interval = $2) AS watched USING (symbol)
WHERE oldest.ts IS NOT NULL OR expected_from IS NOT NULL
"""
# The inner ORDER BY is that of the index, so nothing is sorted however many bars there are.
_BREAKS = """
SELECT place, edge.ts, coalesce(edge.next, past)
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[])
     WITH ORDINALITY AS wanted (wanted_symbol, start, past, place)
CROSS JOIN LATERAL (
    SELECT ts, next FROM (
        SELECT ts, lag(ts) OVER (ORDER BY ts) AS before, lead(ts) OVER (ORDER BY ts) AS next, aligned
        FROM (
            SELECT ts, aligned FROM {table}
            WHERE symbol = wanted_symbol AND interval = $4 AND ts >= start AND ts < past AND is_final
            ORDER BY ts
        ) AS bar
    ) AS neighbours
    WHERE before IS NULL OR next IS NULL OR next - ts > $5::interval OR NOT aligned
) AS edge
"""


class Breaks(NamedTuple):
    """Pairs of stored bars that follow each other without being neighbours, by window and time.

    A window's first bar is among them, whatever follows it; the last one is followed by the window's end.
    """

    window: npt.NDArray[np.int64]
    """Place of the window, from 0 on."""
    ts: Instants
    next: Instants


_NONE = Breaks(np.array([], np.int64), *np.empty((2, 0), "datetime64[us]"))


async def oldest(database: Database, symbols: Sequence[str], interval: Interval) -> dict[str, datetime]:
    """Open of the first bar of each symbol, stored or missed by the gap watch; those without are left out."""
    query = _OLDEST.format(table=candle_table(interval))
    async with database.connection() as connection:
        return {row["symbol"]: row["ts"] for row in await connection.fetch(query, symbols, interval)}


async def breaks(database: Database, interval: Interval, windows: Windows) -> Breaks:
    """The breaks of the final bars in `windows`, all of which have both bounds.

    Two stored bars are neighbours when no other can be between them: bars on the grid, one interval apart.
    Hours and days have a finer grid, so each of their bars counts as a break; there are few of them. What
    lies in a break may be nothing but a closed market. A bar that is not final counts as missing.
    """
    size = max(1, -(-len(windows.symbols) // _LANES))
    firsts = range(0, len(windows.symbols), size)
    parts = [_part(windows, slice(first, first + size)) for first in firsts]
    found = await asyncio.gather(*(_lane(database, interval, part) for part in parts))
    moved = [each._replace(window=each.window + first) for first, each in zip(firsts, found, strict=True)]
    return Breaks(*(np.concatenate(columns) for columns in zip(_NONE, *moved, strict=True)))


def _part(windows: Windows, part: slice) -> Windows:
    return Windows(windows.symbols[part], windows.starts[part], windows.ends[part])


async def _lane(database: Database, interval: Interval, windows: Windows) -> Breaks:
    query = _BREAKS.format(table=candle_table(interval))
    step = timedelta(seconds=interval.seconds if grid_is_interval(interval) else 0)
    async with database.connection() as connection:
        stream = await copy_out(connection, query, *windows, interval, step)
    columns = decode(stream, dict.fromkeys(("place", "ts", "next"), ">i8"))
    ts, after = (microseconds(columns[name]).view("datetime64[us]") for name in ("ts", "next"))
    place = columns["place"].astype(np.int64) - 1
    order = np.lexsort((ts, place))
    return Breaks(place[order], ts[order], after[order])
