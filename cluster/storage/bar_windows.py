"""The one query on the candle tables: the bars in ranges of time, as NumPy columns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from cluster.market.intervals import Interval
from cluster.storage.copy_format import Array, decode, microseconds
from cluster.storage.copy_stream import copy_out, moments
from cluster.storage.database import Connection

VALUES = ("marks", "ts", "open", "high", "low", "close", "volume", "trade_count")
EVERYTHING = (*VALUES, "source", "ingested_at")

# COPY rows are of fixed width when no field is null and no text is shorter than another.
_WIRE = {"source": "S24"} | dict.fromkeys(("marks", "ts", "trade_count", "ingested_at"), ">i8")
_EXPRESSIONS = {
    # Four columns as one: the server's work is by the column.
    "marks": "(place << 34) | (revision::int8 << 2) | (is_final::int << 1) | aligned::int",
    "volume": "coalesce(volume, 'NaN')",
    "trade_count": "coalesce(trade_count, -1)",
    "source": "source::char(24)",
}
# The inner ORDER BY keeps the planner to one index scan a window, whatever it thinks of the table's size.
_QUERY = """
SELECT {columns}
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[])
     WITH ORDINALITY AS wanted (wanted_symbol, start, past, place)
CROSS JOIN LATERAL (
    SELECT * FROM {table}
    WHERE symbol = wanted_symbol AND interval = $4
      AND ts >= coalesce(start, '-infinity') AND ts < coalesce(past, 'infinity')
    ORDER BY ts {direction} LIMIT $5
) AS bar
{order}
"""


class Windows(NamedTuple):
    """Half-open ranges, each of one symbol; None is no bound."""

    symbols: Sequence[str]
    starts: Sequence[datetime | None]
    ends: Sequence[datetime | None]


ROLLUPS = {Interval.M5: "candles_5m", Interval.H1: "candles_1h"}
"""Views of the bars that are made of minutes."""


def candle_table(interval: Interval) -> str:
    """The table that holds the bars of this interval."""
    return "candles_daily" if interval.is_daily else "candles_intraday"


async def fetch(
    connection: Connection,
    interval: Interval,
    windows: Windows,
    fields: Sequence[str] = VALUES,
    *,
    limit: int | None = None,
    newest: bool = False,
    table: str | None = None,
) -> dict[str, Array]:
    """Columns of the stored bars in `windows`, window after window, oldest first; at most `limit` from each.

    `table` is the interval's candle table unless given. `newest` takes the last `limit` of a window instead
    of the first. `ts` and `ingested_at` are microseconds since 2000; an unknown volume is NaN, an unknown
    trade count -1; `source` is padded with blanks; "marks" gives `window` (index into `windows`), `revision`,
    `is_final` and `aligned`.
    """
    columns = ", ".join(_EXPRESSIONS.get(name, name) for name in fields)
    direction, order = ("DESC", "ORDER BY place, ts") if newest else ("", "")
    source = table or candle_table(interval)
    query = _QUERY.format(columns=columns, table=source, direction=direction, order=order)
    stream = await copy_out(connection, query, *windows, interval, limit)
    return await asyncio.to_thread(_columns, stream, fields)


async def fetch_with_rollups(
    connection: Connection, interval: Interval, window: Windows, *, limit: int | None, newest: bool
) -> dict[str, Array]:
    """`EVERYTHING` of one window, as `fetch`; where no bar of 5m or 1h is stored, the one made of minutes."""
    stored = await fetch(connection, interval, window, EVERYTHING, limit=limit, newest=newest)
    if interval not in ROLLUPS:
        return stored
    if limit is not None and len(stored["ts"]) == limit > 0:  # nothing beyond them is in the answer
        window = _up_to(window, stored["ts"], newest=newest)
    # The first so many of both hold the first so many of them together.
    made = await fetch(
        connection, interval, window, EVERYTHING, limit=limit, newest=newest, table=ROLLUPS[interval]
    )
    return await asyncio.to_thread(_filled, stored, made, limit, newest=newest) if len(made["ts"]) else stored


def _up_to(window: Windows, ts: Array, *, newest: bool) -> Windows:
    """The window up to the last of `ts`, ascending; back to the first, if `newest`."""
    (edge,) = moments(microseconds(ts[:1] if newest else ts[-1:]))
    return window._replace(starts=[edge]) if newest else window._replace(ends=[edge])


def _filled(
    stored: dict[str, Array], made: dict[str, Array], limit: int | None, *, newest: bool
) -> dict[str, Array]:
    columns = {name: np.concatenate([stored[name], made[name]]) for name in stored}
    _, places = np.unique(columns["ts"], return_index=True)  # of two at one time the first: the stored one
    if limit is not None:
        places = places[max(0, len(places) - limit) :] if newest else places[:limit]
    return {name: column[places] for name, column in columns.items()}


def _columns(stream: bytearray, fields: Sequence[str]) -> dict[str, Array]:
    columns = decode(stream, {name: _WIRE.get(name, ">f8") for name in fields})
    marks = columns.pop("marks", None)
    if marks is not None:
        columns["window"] = ((marks >> 34) - 1).astype(np.int32)
        columns["revision"] = ((marks >> 2) & 0x7FFF_FFFF).astype(np.int32)
        columns["is_final"], columns["aligned"] = (marks & 2) != 0, (marks & 1) != 0
    return columns
