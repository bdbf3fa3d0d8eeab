"""`finsight gaps`: the bars that the exchange calendar expects and the database does not have."""

from __future__ import annotations

from collections.abc import Sequence
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
    from cluster.backfill import missing
    from cluster.storage.database import Database

OPEN = "open"


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
    """Everything that is missing, and the symbols that, without `start`, have no beginning.

    They have no bar, and nobody watches them.
    """
    from cluster.backfill import missing
    from cluster.clock import SystemClock
    from cluster.market.universe_csv import require_calendar
    from cluster.storage import universe

    named = [await require(database, name) for name in symbols]
    for each in named:
        require_calendar(each.calendar)  # of many it would be left out
    chosen = named or await universe.listed(database)
    now = SystemClock().now()
    starts = await missing.since(database, chosen, interval, start)
    wanted = missing.settled(chosen, starts, interval, end or now, now)
    found = [told(each) for each in await missing.find(database, wanted, interval)]
    return found, [each.symbol for each in chosen if each.symbol not in starts]


def told(found: missing.Missing) -> Missing:
    """The same in the words of this command."""
    instrument, gap = found.instrument, found.gap
    words = in_words(found.cause)
    return Missing(
        instrument.symbol, str(found.interval), instrument.tier, gap.start, gap.end, gap.missing, words
    )


def in_words(cause: missing.Cause) -> str:
    """Why bars are missing, for people."""
    match cause.name:
        case "not_fetched":
            return OPEN
        case "queued":
            return "in the queue"
        case "given_up":
            return f"given up: {cause.detail or 'no reason'}"
        case "rejected":
            return f"bars of {cause.provider} not valid"
        case "no_trades":
            return "no trades"
        case "venue_down":
            return "venue was down"
        case "unfillable":
            return f"cannot be filled: {cause.detail}"
        case "no_data" | "provider_hole":
            return f"{cause.provider} has none"
