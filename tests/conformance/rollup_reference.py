"""Rollups made the slow way, from the definition, to compare with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from cluster.market import calendars

Row = dict[str, Any]
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def rolled(minutes: Iterable[Row], bucket: Callable[[Row], datetime]) -> list[tuple[Any, ...]]:
    """(symbol, ts, open, high, low, close, volume, trade_count, minutes) by key."""
    groups = defaultdict(list)
    for row in sorted(minutes, key=lambda row: row["ts"]):
        groups[row["symbol"], bucket(row)].append(row)
    return [
        (
            symbol,
            ts,
            rows[0]["open"],
            max(row["high"] for row in rows),
            min(row["low"] for row in rows),
            rows[-1]["close"],
            _total(row["volume"] for row in rows),
            _total(row["trade_count"] for row in rows),
            len(rows),
        )
        for (symbol, ts), rows in sorted(groups.items())
    ]


def five_minutes(row: Row) -> datetime:
    """Of UTC."""
    ts: datetime = row["ts"]
    return ts.replace(minute=ts.minute - ts.minute % 5)


def hour_of(calendar: str) -> Callable[[Row], datetime]:
    """Counts from the last opening or closing of that UTC day, or from its beginning."""

    def bucket(row: Row) -> datetime:
        ts: datetime = row["ts"]
        midnight = ts.replace(hour=0, minute=0)
        begins = midnight
        if calendar != calendars.ALWAYS_OPEN:
            known = calendars.sessions(calendar, midnight - DAY, midnight + DAY)
            edges = [*known.opens.tolist(), *known.closes.tolist()]
            aware = [edge.replace(tzinfo=UTC) for edge in edges]
            begins = max([midnight, *(edge for edge in aware if midnight <= edge <= ts)])
        return begins + (ts - begins) // HOUR * HOUR

    return bucket


def _total(values: Iterable[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
