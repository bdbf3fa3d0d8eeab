"""`finsight symbols`: the universe of symbols."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli import terminal
from cluster.cli.arguments import JsonOption, SymbolArgument, TierOption, group, moment
from cluster.cli.offered import offered
from cluster.cli.sql import with_database
from cluster.errors import InputError, UnknownSymbol
from cluster.market.symbols import AssetType, Instrument, Tier

if TYPE_CHECKING:
    from cluster.cli.tiers import Reviewed
    from cluster.market.universe_csv import Listing
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
    family.command("import")(import_file)
    family.command()(offered)
    family.command()(tiers)


def list_symbols(
    tier: TierOption = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            "--as-of", parser=moment, metavar="TIME", help="The universe as it was then, UTC; default: now."
        ),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Inactive symbols too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the symbols, with the tier that says how urgent their data is."""
    found = with_database(lambda database: _listed(database, tier, as_of=as_of, active_only=not everything))
    columns = ("symbol", "name", "exchange", "type", "calendar", "tier", "active")
    rows = [(i.symbol, i.name, i.exchange, i.asset_type, i.calendar, i.tier, i.active) for i in found]
    terminal.emit([asdict(each) for each in found], as_json=as_json, text=terminal.table(columns, rows))
    if not found and not as_json and as_of is None:
        terminal.talk(
            "There are none. `finsight ingest` adds those of a provider, `finsight symbols add` one."
        )


async def _listed(
    database: Database, tier: Tier | None, *, as_of: datetime | None, active_only: bool
) -> list[Instrument]:
    from cluster.storage import universe

    return await universe.listed(database, tier=tier, active_only=active_only, as_of=as_of)


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
    from cluster.market.universe_csv import default_calendar

    chosen = default_calendar(asset_type) if calendar is None else calendar
    _check_calendar(chosen)
    instrument = Instrument(
        symbol, exchange, asset_type, chosen, name=name or "", currency=currency, tier=tier or "T2"
    )
    with_database(lambda database: _add(database, instrument))
    terminal.emit(asdict(instrument), as_json=as_json, text=terminal.facts(asdict(instrument)))


async def _add(database: Database, instrument: Instrument) -> None:
    from cluster.storage import audit, universe

    if not await universe.add(database, instrument, by=audit.os_user()):
        raise InputError(
            f"{instrument.symbol} is in the universe already; `finsight symbols set` changes it."
        )


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
    if calendar is not None:
        _check_calendar(calendar)
    changed = with_database(lambda database: _change(database, symbol, changes))
    terminal.emit(asdict(changed), as_json=as_json, text=terminal.facts(asdict(changed)))


async def _change(database: Database, symbol: str, changes: Mapping[str, object]) -> Instrument:
    from cluster.storage import audit, universe

    changed = await universe.change(database, symbol, changes, by=audit.os_user())
    return changed or await require(database, symbol)


def import_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.csv", exists=True, dir_okay=False, help="UTF-8, with a header.")
    ],
    tag: Annotated[
        str | None,
        typer.Option(help="Name of the version; default: the file's name and the time.", show_default=False),
    ] = None,
    *,
    deactivate_missing: Annotated[
        bool, typer.Option("--deactivate-missing", help="Symbols that are not in the file become inactive.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add the symbols of a CSV file, or bring them up to date: all of them or none.

    The header has symbol and exchange, and any of asset_type, calendar, name, currency, tier, active, adv_21d
    and mkt_cap. Of symbols that are known already only the columns of the header are changed. Symbols that
    are not in the file stay as they are, unless they are to become inactive. The import becomes a version of
    the universe.
    """
    content = file.read_bytes()
    listing = _parsed(file, content)
    if dry_run:
        facts: dict[str, object] = {"symbols": len(listing.instruments)}
    else:
        wanted = _Import(listing, _tag(file, tag), _meta(file, content), deactivate_missing)
        facts = with_database(wanted)
    terminal.emit(facts, as_json=as_json, text=terminal.facts(facts))
    if dry_run and not as_json:
        terminal.talk("Nothing was changed; without --dry-run the file is imported.")


def _parsed(file: Path, content: bytes) -> Listing:
    from cluster.market import universe_csv

    try:
        return universe_csv.parse(content.decode("utf-8-sig").splitlines(keepends=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8: {error}. Nothing was changed.") from None
    except InputError as error:
        raise InputError(f"{file} was not imported, and nothing was changed.\n{error}") from None


def _tag(file: Path, given: str | None) -> str:
    from cluster.clock import SystemClock

    return given or f"{file.stem[:200]}-{SystemClock().now():%Y%m%dT%H%M%SZ}"


def _meta(file: Path, content: bytes) -> dict[str, object]:
    return {"source": "csv", "file": file.name, "sha256": hashlib.sha256(content).hexdigest()}


@dataclass(frozen=True)
class _Import:
    """One import, ready to be done."""

    listing: Listing
    tag: str
    meta: Mapping[str, object]
    deactivate_missing: bool

    async def __call__(self, database: Database) -> dict[str, object]:
        from cluster.storage import audit, universe

        done = await universe.import_all(
            database,
            self.listing.instruments,
            self.tag,
            self.meta,
            columns=self.listing.columns,
            deactivate_missing=self.deactivate_missing,
            by=audit.os_user(),
        )
        return {
            "version": done.version.version_tag,
            "added": len(done.added),
            "changed": len(done.changed),
            "deactivated": len(done.deactivated),
            "unchanged": done.unchanged,
        }


def tiers(
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Set them, as one version of the universe.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which active symbols belong to another tier, by volume of 21 sessions and market capitalisation.

    The volume is computed from the stored daily bars; where there are too few of them the one of the universe
    counts. The limits are the setting `tiers`; a symbol that fell below one by less than `tier_slack` stays.
    """
    from cluster import settings
    from cluster.cli.tiers import Review

    found = with_database(Review(settings.load().tier_rule, apply=apply))
    columns = ("symbol", "tier", "should be", "volume of 21 sessions", "market cap")
    rows = [(c.symbol, c.before, c.after, c.adv_21d, c.mkt_cap) for c in found.changes]
    terminal.emit(asdict(found), as_json=as_json, text=terminal.table(columns, rows))
    if not as_json:
        terminal.talk(_told(found))


def _told(found: Reviewed) -> str:
    if found.version:
        return f"Set, as version {found.version}."
    if found.changes:
        return f"{len(found.changes)} symbols belong to another tier; --apply sets them."
    return "Every symbol is in the tier where it belongs."


def _check_calendar(calendar: str) -> None:
    from cluster.market.universe_csv import require_calendar

    try:
        require_calendar(calendar)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
