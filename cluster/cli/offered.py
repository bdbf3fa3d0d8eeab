"""`finsight symbols offered`: what a provider lists, as a file that `finsight symbols import` takes."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli import terminal
from cluster.cli.arguments import JsonOption
from cluster.cli.sql import with_database
from cluster.errors import InputError
from cluster.market.symbols import Instrument, Tier

if TYPE_CHECKING:
    from cluster.storage.database import Database

_COLUMNS = ("symbol", "exchange", "asset_type", "calendar", "name", "currency")
_NEW: Tier = "T3"
"""A venue lists thousands of symbols, and every other tier collects bars of minutes."""


def offered(
    provider: Annotated[str, typer.Argument(help="Provider with a list, such as binance.")],
    currency: Annotated[
        str | None, typer.Option(help="Only what is priced in this, such as USDT.", show_default=False)
    ] = None,
    tier: Annotated[
        Tier | None,
        typer.Option(help="Of all symbols; default: known ones keep theirs, new ones come into T3."),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="What does not trade now, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what a provider lists as CSV, to be looked through and given to `finsight symbols import`.

    Without --tier the file has the tiers that known symbols have now, which needs the database. Known symbols
    stay active or not as they are: the file tells what trades only with --all.
    """
    found = [
        each
        for each in asyncio.run(_listed(provider))
        if (everything or each.active) and currency in (None, each.currency)
    ]
    if not found:
        raise InputError(f"provider {provider} lists nothing of that kind")
    known = {} if tier else with_database(_tiers)
    rows = [_row(each, tier or known.get(each.symbol, _NEW), with_active=everything) for each in found]
    terminal.emit(rows, as_json=as_json, text=_csv(rows).rstrip())


async def _listed(provider: str) -> list[Instrument]:
    """Asked by a gateway of this process: one call, which the provider counts with all others."""
    from cluster import settings
    from cluster.providers import plans, registry
    from cluster.providers.gateway import Gateway
    from cluster.providers.protocol import Closing

    options = settings.load().provider_options(provider)
    client = registry.create(provider, options)
    try:
        return await Gateway(client, policy=plans.policy(provider, options)).instruments()
    finally:
        if isinstance(client, Closing):
            await client.close()


async def _tiers(database: Database) -> dict[str, Tier]:
    from cluster.storage import universe

    return {each.symbol: each.tier for each in await universe.listed(database, active_only=False)}


def _row(instrument: Instrument, tier: Tier, *, with_active: bool) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(instrument, name) for name in _COLUMNS} | {"tier": tier}
    if with_active:
        row["active"] = str(instrument.active).lower()
    return row


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
