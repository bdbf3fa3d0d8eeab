"""Which symbols a job works on, and their stored bars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import NotEnoughHistory, UnknownSymbol
from cluster.market.instants import Instants
from cluster.market.intervals import Interval
from cluster.storage import bars, universe
from cluster.storage.database import Database


async def chosen(database: Database, named: Sequence[str], as_of: datetime | None = None) -> list[str]:
    """The `named` symbols, active or not, or every active one; `UnknownSymbol` lists those nobody knows.

    `as_of`: those that were active then, so that who failed since is among them.
    """
    if not named:
        return [one.symbol for one in await universe.listed(database, as_of=as_of)]
    known = {one.symbol for one in await universe.listed(database, active_only=False)}
    if unknown := sorted(set(named) - known):
        raise UnknownSymbol(f"not in the symbol universe: {', '.join(unknown)}; see `finsight symbols`")
    return sorted(set(named))


async def final_bars(database: Database, symbols: Sequence[str], interval: Interval) -> dict[str, pa.Table]:
    """All final bars by symbol, oldest first; a symbol without any is left out."""
    table = await bars.read_many(database, symbols, interval)
    table = table.filter(table["is_final"])
    by_symbol = {symbol: table.filter(pc.equal(table["symbol"], symbol)) for symbol in symbols}
    return {symbol: one for symbol, one in by_symbol.items() if one.num_rows}


def require_bars(symbol: str, interval: Interval, found: int, wanted: int = 1) -> None:
    """Raise `NotEnoughHistory` when fewer than `wanted` bars were found."""
    if found < wanted:
        raise NotEnoughHistory(
            f"{symbol} has {found} stored {interval} bars, {wanted} are needed; "
            f"`finsight backfill {symbol} --interval {interval}` fetches them"
        )


def opens(table: pa.Table) -> Instants:
    """The column `ts` of a bar table, `datetime64[us]`."""
    instants: Instants = table["ts"].to_numpy().astype("datetime64[us]")
    return instants


def model_name(configured: str, interval: Interval) -> str:
    """Name of the registered model of `interval`: the `configured` one for daily bars."""
    return configured if interval.is_daily else f"finsight-{interval}"
