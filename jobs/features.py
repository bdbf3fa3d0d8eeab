"""Compute the features of stored bars and keep them in `feature_engineered_data`, or write them to a file."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.errors import InputError
from cluster.market.instants import Instants
from cluster.market.intervals import Interval
from cluster.settings import Settings
from cluster.storage import bars
from cluster.storage import features as stored_features
from cluster.storage.database import Database
from jobs import arguments, history, protocol
from jobs.protocol import Progress

if TYPE_CHECKING:
    from training.features import Features


async def store(
    database: Database,
    symbols: Sequence[str],
    interval: Interval,
    *,
    progress: Progress = lambda _share, _what: None,
) -> dict[str, Any]:
    """Bring the stored features of `symbols` up to date, one transaction a symbol.

    Returns by symbol how many `rows` it has and how many were `written`; rows up to date are left alone.
    """
    from training import features  # TA-Lib and PyWavelets; not needed to say how the job is used

    rows: dict[str, dict[str, int]] = {}
    for place, symbol in enumerate(symbols):
        progress(place / len(symbols), symbol)
        table = await bars.read(database, symbol, interval)
        computed = await asyncio.to_thread(features.compute, table)
        written = await _update(database, symbol, interval, history.opens(table), computed)
        rows[symbol] = {"rows": table.num_rows, "written": written}
    return {"feature_set": features.DIGEST, "interval": interval, "symbols": rows}


async def _update(
    database: Database, symbol: str, interval: Interval, ts: Instants, computed: Features
) -> int:
    stored = await stored_features.read(database, symbol, interval, computed.digest)
    changed = stale(stored, ts, computed)
    if not changed.any():
        return 0
    async with database.transaction() as connection:
        return await stored_features.write(
            connection,
            symbol,
            interval,
            ts[changed],
            computed.values[changed],
            computed.names,
            computed.digest,
        )


def stale(stored: pa.Table, ts: Instants, computed: Features) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows (T,) of `computed` the table `stored` (`FEATURE_SCHEMA`) does not hold, or not as they are.

    Values are compared and not times of writing: a bar can be revised by a transaction that began long ago.
    """
    have = stored["timestamp"].to_numpy().astype("datetime64[us]")
    place = np.searchsorted(have, ts)
    known = place < len(have)
    known[known] = have[place[known]] == ts[known]
    old = np.column_stack([stored[name].to_numpy()[place[known]] for name in computed.names])
    new = computed.values[known]
    changed = ~known
    changed[known] = ~((old == new) | (np.isnan(old) & np.isnan(new))).all(axis=1)
    return changed


async def export(database: Database, symbol: str, interval: Interval, out: Path) -> dict[str, Any]:
    """Write ts and all features of `symbol` to a Parquet file, which is there as a whole or not at all."""
    from training import features

    table = await bars.read(database, symbol, interval)
    history.require_bars(symbol, interval, table.num_rows)
    computed = features.compute(table)
    columns = {name: computed.values[:, place] for place, name in enumerate(computed.names)}
    _write_parquet(pa.table({"ts": table["ts"], **columns}), out)
    rows = {symbol: {"rows": table.num_rows}}
    return {"feature_set": computed.digest, "interval": interval, "symbols": rows, "out": str(out)}


def _write_parquet(table: pa.Table, out: Path) -> None:
    from pyarrow import parquet

    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as staging:
        made = Path(staging, "whole.parquet")
        parquet.write_table(table, made)
        made.replace(out)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options in `words`, or on the command line; leaves with status 2 when they are wrong."""
    made = arguments.parser("features", "Compute the features of stored bars and store them.")
    made.add_argument(
        "symbols", nargs="*", type=arguments.symbol, metavar="SYMBOL", help="default: all active"
    )
    made.add_argument("--out", type=Path, metavar="FILE.parquet", help="write there instead; one SYMBOL")
    options = made.parse_args(words)
    if options.out and len(options.symbols) != 1:
        made.error("--out needs exactly one SYMBOL")
    return options


def work(options: argparse.Namespace, settings: Settings, progress: Progress) -> Mapping[str, Any]:
    """Do what the command line asks for."""

    async def connected() -> dict[str, Any]:
        database = await Database.open(settings.require_database_url(), max_size=2)
        try:
            symbols = await history.chosen(database, options.symbols)
            if options.out:
                return await export(database, symbols[0], options.interval, options.out)
            return await store(database, symbols, options.interval, progress=progress)
        finally:
            await database.close()

    return asyncio.run(connected())


if __name__ == "__main__":
    protocol.run(parse(), work)
