"""`finsight gaps`: the bars that the exchange calendar expects and the database does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli import terminal
from cluster.cli.arguments import IntervalOption, JsonOption, moment, symbol
from cluster.cli.sql import with_database
from cluster.cli.symbols import require
from cluster.market.intervals import Interval

if TYPE_CHECKING:
    from cluster.market.gaps import Gap
    from cluster.market.instants import Instants
    from cluster.market.symbols import Instrument
    from cluster.storage.backfill_merge import Span
    from cluster.storage.database import Database

OPEN = "open"

# The first cause that explains a missing bar is told.
_CAUSES = """
SELECT 'in the queue' AS cause, start_ts, end_ts FROM backfill_jobs
WHERE symbol = $1 AND interval = $2 AND state IN ('ready', 'leased') AND start_ts < $4 AND end_ts > $3
UNION ALL
SELECT CASE cause WHEN 'rejected' THEN 'bars of ' || provider || ' not valid'
                  ELSE provider || ' has none' END, start_ts, end_ts FROM known_gaps
WHERE symbol = $1 AND interval = $2 AND start_ts < $4 AND end_ts > $3
UNION ALL
SELECT 'given up: ' || coalesce(reason, 'no reason'), start_ts, end_ts FROM backfill_jobs
WHERE symbol = $1 AND interval = $2 AND state = 'dead' AND start_ts < $4 AND end_ts > $3
"""


@dataclass(frozen=True)
class Missing:
    """Missing bars that follow each other, as a half-open range of opens, and why they are missing."""

    symbol: str
    interval: str
    tier: str
    start: datetime
    end: datetime
    missing: int
    cause: str
    """`open` when nothing is known about it, and nothing under way."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(gaps)


def gaps(
    symbols: Annotated[
        list[str] | None,
        typer.Argument(metavar="SYMBOL", parser=symbol, help="Default: all active ones."),
    ] = None,
    interval: IntervalOption = Interval.D1,
    start: Annotated[
        datetime | None,
        typer.Option("--from", parser=moment, metavar="TIME", help="UTC; default: the oldest stored bar."),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option("--to", parser=moment, metavar="TIME", help="UTC, not included; default: now."),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the bars that should be stored and are not, by the exchange's calendar."""
    found, empty = with_database(lambda database: _search(database, symbols or [], interval, start, end))
    columns = ("symbol", "interval", "tier", "from", "to", "missing", "cause")
    rows = [tuple(asdict(each).values()) for each in found]
    if rows or as_json:
        terminal.emit(found, as_json=as_json, text=terminal.table(columns, rows))
    for name in empty:
        terminal.talk(f"{name} has no {interval} bars; `finsight backfill {name} --interval {interval}`.")
    if not found and not empty:
        terminal.talk(f"No {interval} bar is missing.")


async def _search(
    database: Database,
    symbols: Sequence[str],
    interval: Interval,
    start: datetime | None,
    end: datetime | None,
) -> tuple[list[Missing], list[str]]:
    """Everything that is missing, and the symbols that have no bar and so, without `start`, no beginning."""
    from cluster.clock import SystemClock
    from cluster.storage import bars, universe

    chosen = [await require(database, name) for name in symbols] or await universe.listed(database)
    found: list[Missing] = []
    empty = []
    for instrument in chosen:
        oldest = await bars.read(database, instrument.symbol, interval, limit=1)
        since = start or (oldest["ts"][0].as_py() if oldest.num_rows else None)
        if since is None:
            empty.append(instrument.symbol)
        else:
            found += await _missing(database, instrument, interval, since, end or SystemClock().now())
    return found, empty


async def _missing(
    database: Database, instrument: Instrument, interval: Interval, start: datetime, end: datetime
) -> list[Missing]:
    from cluster.backfill.plan import settled_end
    from cluster.backfill.scan import Scan
    from cluster.clock import SystemClock
    from cluster.market import calendars
    from cluster.storage import bars

    end = settled_end(end, interval, SystemClock().now(), Scan().grace_s)
    if end <= start:
        return []
    expected = calendars.expected_opens(instrument.calendar, interval, start, end)
    stored = await bars.opens(database, instrument.symbol, interval, start, end)
    causes = await _causes(database, instrument.symbol, interval, start, end)
    return explained(instrument, interval, expected, stored, causes)


async def _causes(
    database: Database, symbol: str, interval: Interval, start: datetime, end: datetime
) -> dict[str, list[Span]]:
    from cluster.storage.backfill_records import span_of

    causes: dict[str, list[Span]] = {}
    async with database.connection() as connection:
        for row in await connection.fetch(_CAUSES, symbol, str(interval), start, end):
            causes.setdefault(row["cause"], []).append(span_of(row))
    return causes


def explained(
    instrument: Instrument,
    interval: Interval,
    expected: Instants,
    stored: Instants,
    causes: Mapping[str, Sequence[Span]],
) -> list[Missing]:
    """The missing bars by range, oldest first; each has the first of `causes` that covers it, else `open`."""
    import numpy as np

    from cluster.backfill.plan import within
    from cluster.market.gaps import find

    left = np.setdiff1d(expected, stored)
    found = []
    for cause, spans in [*causes.items(), (OPEN, None)]:
        mine = left if spans is None else within(left, spans)
        holes = find(expected, np.setdiff1d(expected, mine), interval)
        found += [_of(instrument, interval, hole, cause) for hole in holes]
        left = np.setdiff1d(left, mine)
    return sorted(found, key=lambda each: each.start)


def _of(instrument: Instrument, interval: Interval, hole: Gap, cause: str) -> Missing:
    return Missing(
        instrument.symbol, str(interval), instrument.tier, hole.start, hole.end, hole.missing, cause
    )
