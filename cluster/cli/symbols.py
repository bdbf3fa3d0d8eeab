"""`finsight symbols`: the universe of symbols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli import terminal
from cluster.cli.arguments import JsonOption, SymbolArgument, TierOption, group
from cluster.cli.sql import with_database
from cluster.errors import InputError, UnknownSymbol
from cluster.market.symbols import AssetType, Instrument, Tier

if TYPE_CHECKING:
    from datetime import datetime

    from cluster.storage.database import Database

CalendarOption = Annotated[
    str | None, typer.Option(help="Exchange calendar, like XNYS or XLON, or 24/7.", show_default=False)
]
ActiveOption = Annotated[
    bool | None, typer.Option("--active/--inactive", help="Whether it is collected and trained on.")
]
NameOption = Annotated[str | None, typer.Option(help="Its name in words.", show_default=False)]

_STORED = """
SELECT interval, count(*) AS bars, min(ts) AS first, max(ts) AS last FROM {table}
WHERE symbol = $1 GROUP BY interval ORDER BY interval
"""


@dataclass(frozen=True)
class Stored:
    """What is stored of a symbol."""

    interval: str
    bars: int
    first: datetime
    last: datetime


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    family = group(app, "symbols", "List and change the universe of symbols.")
    family.command("list")(list_symbols)
    family.command()(show)
    family.command()(add)
    family.command("set")(change)


def list_symbols(
    tier: TierOption = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Inactive symbols too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the symbols, with the tier that says how urgent their data is."""
    found = with_database(lambda database: _listed(database, tier, active_only=not everything))
    columns = ("symbol", "name", "exchange", "type", "calendar", "tier", "active")
    rows = [(i.symbol, i.name, i.exchange, i.asset_type, i.calendar, i.tier, i.active) for i in found]
    terminal.emit([asdict(each) for each in found], as_json=as_json, text=terminal.table(columns, rows))
    if not found and not as_json:
        terminal.talk(
            "There are none. `finsight ingest` adds those of a provider, `finsight symbols add` one."
        )


async def _listed(database: Database, tier: Tier | None, *, active_only: bool) -> list[Instrument]:
    from cluster.storage import universe

    return await universe.listed(database, tier=tier, active_only=active_only)


def show(symbol: SymbolArgument, *, as_json: JsonOption = False) -> None:
    """Print what is known and stored of one symbol."""
    instrument, stored = with_database(lambda database: _known(database, symbol))
    bars = {each.interval: f"{each.bars} bars, {_range(each)}" for each in stored}
    terminal.emit(
        {**asdict(instrument), "stored": stored},
        as_json=as_json,
        text=terminal.facts({**asdict(instrument), **(bars or {"stored": "no bars"})}),
    )


def _range(stored: Stored) -> str:
    return f"{terminal.when(stored.first)} to {terminal.when(stored.last)}"


async def _known(database: Database, symbol: str) -> tuple[Instrument, list[Stored]]:
    instrument = await require(database, symbol)
    async with database.connection() as connection:
        rows = [
            row
            for table in ("candles_intraday", "candles_daily")
            for row in await connection.fetch(_STORED.format(table=table), symbol)
        ]
    return instrument, [Stored(**dict(row)) for row in rows]


async def require(database: Database, symbol: str) -> Instrument:
    """The instrument of `symbol`; raises `UnknownSymbol`."""
    from cluster.storage import universe

    found = await universe.get(database, symbol)
    if found is None:
        raise UnknownSymbol(
            f"Symbol {symbol} is not in the universe. `finsight symbols` lists those that are, "
            f"`finsight symbols add {symbol} --exchange ...` adds it."
        )
    return found


def add(
    symbol: SymbolArgument,
    exchange: Annotated[str, typer.Option(help="Where it trades, like NASDAQ.")],
    asset_type: Annotated[AssetType, typer.Option("--type", help="What it is.")] = "equity",
    calendar: CalendarOption = None,
    tier: TierOption = None,
    name: NameOption = None,
    currency: Annotated[str, typer.Option(help="It is quoted in.")] = "USD",
    *,
    as_json: JsonOption = False,
) -> None:
    """Add one symbol. Its history comes with `finsight backfill SYMBOL`."""
    chosen = calendar or ("24/7" if asset_type == "crypto" else "XNYS")
    _check_calendar(chosen)
    instrument = Instrument(
        symbol, exchange, asset_type, chosen, name=name or "", currency=currency, tier=tier or "T2"
    )
    with_database(lambda database: _add(database, instrument))
    terminal.emit(asdict(instrument), as_json=as_json, text=terminal.facts(asdict(instrument)))


async def _add(database: Database, instrument: Instrument) -> None:
    from cluster.storage import universe

    if await universe.get(database, instrument.symbol) is not None:
        raise InputError(
            f"{instrument.symbol} is in the universe already; `finsight symbols set` changes it."
        )
    await universe.upsert(database, [instrument])


def change(
    symbol: SymbolArgument,
    tier: TierOption = None,
    *,
    active: ActiveOption = None,
    calendar: CalendarOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the tier, the calendar or the name of a symbol, or whether it is active."""
    given = {"tier": tier, "active": active, "calendar": calendar, "name": name}
    changes = {key: value for key, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("nothing to change; give --tier, --active, --inactive, --calendar or --name")
    if calendar:
        _check_calendar(calendar)
    changed = with_database(lambda database: _change(database, symbol, changes))
    terminal.emit(asdict(changed), as_json=as_json, text=terminal.facts(asdict(changed)))


async def _change(database: Database, symbol: str, changes: Mapping[str, object]) -> Instrument:
    from cluster.storage import universe

    changed = replace(await require(database, symbol), **changes)  # type: ignore[arg-type]
    await universe.upsert(database, [changed])
    return changed


def _check_calendar(calendar: str) -> None:
    from cluster.clock import SystemClock
    from cluster.market import calendars

    now = SystemClock().now()
    try:
        calendars.sessions(calendar, now, now)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
