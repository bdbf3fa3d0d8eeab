"""The one query on the candle tables: the bars in ranges of time, as a structured NumPy array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from cluster.market.intervals import Interval
from cluster.storage.copy_format import Array, decode
from cluster.storage.copy_stream import copy_out
from cluster.storage.database import Connection

VALUES = {
    "window": ">i4",
    "ts": ">i8",
    **dict.fromkeys(("open", "high", "low", "close", "volume"), ">f8"),
    "trade_count": ">i8",
    "is_final": "?",
}
"""What a bar says: index of its window, microseconds since 2000, values; volume NaN and count -1: unknown."""

EVERYTHING = {**VALUES, "aligned": "?", "source": "S24", "revision": ">i4", "ingested_at": ">i8"}
"""`VALUES` and where they come from; `source` is padded with blanks."""

# COPY rows are of fixed width when no field is null and no text is shorter than another.
_EXPRESSIONS = {
    "window": "place::int4 - 1",
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


def candle_table(interval: Interval) -> str:
    """The table that holds the bars of this interval."""
    return "candles_daily" if interval.is_daily else "candles_intraday"


async def fetch(
    connection: Connection,
    interval: Interval,
    windows: Windows,
    fields: Mapping[str, str] = VALUES,
    *,
    limit: int | None = None,
    newest: bool = False,
) -> Array:
    """The stored bars in `windows`, window after window, oldest first; at most `limit` from each.

    `newest` takes the last `limit` of a window instead of the first.
    """
    columns = ", ".join(_EXPRESSIONS.get(name, name) for name in fields)
    direction, order = ("DESC", "ORDER BY place, ts") if newest else ("", "")
    query = _QUERY.format(columns=columns, table=candle_table(interval), direction=direction, order=order)
    return decode(await copy_out(connection, query, *windows, interval, limit), fields)
