"""Bars in and out of PostgreSQL as Arrow tables, without a Python object for a row.

Writing reads the stored bars of the same ranges, compares them in NumPy, copies the new ones straight into
their table in the order of its key, and updates those that changed; what is unchanged is not touched. In
between, advisory locks keep two writers of one symbol apart. Both ways use COPY in binary: on the way in the
index is the cost, and in order it costs half; on the way out there is nothing to parse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zlib import crc32

import asyncpg
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import BadBars, StorageError
from cluster.market.bars import BAR_SCHEMA
from cluster.market.intervals import Interval
from cluster.storage.bar_batch import Batch, Spans, batches, compare
from cluster.storage.bar_windows import (
    EVERYTHING,
    VALUES,
    Windows,
    candle_table,
    fetch,
    fetch_with_rollups,
)
from cluster.storage.copy_format import Array, microseconds
from cluster.storage.copy_stream import copy_in, moments, opened, require_aware
from cluster.storage.database import Connection, Database

STORED_BAR_SCHEMA = pa.schema(
    [
        *BAR_SCHEMA,
        pa.field("revision", pa.int32(), nullable=False),
        pa.field("ingested_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""`BAR_SCHEMA` with how often the values of the bar were changed, and when they were last written."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LANES = 2  # connections a read of many symbols uses: the server formats on one core per connection
_LOCK_CLASS = 0x62617273  # "bars"
_LOCK_STRIPES = 256  # bounds the locks a writer holds; two symbols of one stripe only wait for each other
_LOCK = "SELECT pg_advisory_xact_lock($1, stripe) FROM unnest($2::int[]) AS stripe"
_PARTITIONS = "SELECT ensure_candle_partition($1, moment) FROM unnest($2::timestamptz[]) AS moment"
_HOLD = "SELECT hold_chunks($1, $2)"
_IN_COLUMNSTORE = "SELECT in_columnstore($1, $2, $3)"
_STAGE = "CREATE TEMP TABLE staged_bars ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA"
_REVISE = """
UPDATE {table} AS stored
SET {assignments}, revision = stored.revision + 1, ingested_at = now()
FROM staged_bars AS staged
WHERE stored.symbol = staged.symbol AND stored.interval = staged.interval AND stored.ts = staged.ts
  AND stored.interval = $1 AND stored.ts BETWEEN $2 AND $3
"""
_ASSIGN = "{name} = staged.{name}"
_ASSIGN_KNOWN = """{name} = CASE WHEN staged.{name} IS NULL AND stored.is_final >= staged.is_final
THEN stored.{name} ELSE staged.{name} END"""  # what a running bar had so far is not what it ended with


@dataclass(frozen=True)
class WriteResult:
    """What a write did; the first three add up to the number of different bars given."""

    inserted: int = 0
    revised: int = 0
    unchanged: int = 0
    corrected: int = field(default=0, compare=False)
    """How many of the revised bars had been final before."""
    changed: Mapping[tuple[Interval, str], int] = field(default_factory=dict, compare=False)
    """Bars inserted or revised of each (interval, symbol); none: left out."""

    def __add__(self, other: WriteResult) -> WriteResult:
        """Of two writes of different intervals."""
        return WriteResult(
            self.inserted + other.inserted,
            self.revised + other.revised,
            self.unchanged + other.unchanged,
            self.corrected + other.corrected,
            {**self.changed, **other.changed},
        )


async def write(connection: Connection, table: pa.Table, *, asked_at: datetime | None = None) -> WriteResult:
    """Insert the bars of `table` (`BAR_SCHEMA`, any order) that are new and update those that changed.

    Goes on inside the caller's transaction (READ COMMITTED), so nothing is kept if that is rolled back; other
    writers of the same symbols wait until it ends. A bar is revised, and its `revision` counted up, when a
    price, the finality, or a known volume or trade count differs; the same values from another source change
    nothing. A bar that is not final never changes a final one. An unknown volume or trade count leaves a
    known one as it is, unless that is of a bar that was still running. Of several rows with one key a final
    one wins, then the last. Takes about 300 bytes of memory a bar.

    `asked_at`: when the provider was asked, or earlier, by the database's clock. What others have stored
    since may be newer and is not changed, so that a slow answer never undoes a correction.

    Raises `BadBars` when bars break the invariants, `StorageError` when a program that does not take the
    locks wrote the same bars meanwhile; the transaction cannot go on after either.
    """
    if not connection.is_in_transaction():
        raise StorageError("bars.write needs a transaction; use `async with database.transaction()`.")
    result = WriteResult()
    if table.num_rows:
        parts = await asyncio.to_thread(batches, table)
        await _lock(connection, parts)
        for batch in parts:
            result += await _write(connection, batch, asked_at)
    return result


async def read(
    source: Database | str,
    symbol: str,
    interval: Interval,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int | None = None,
    *,
    newest: bool = False,
    with_rollups: bool = False,
) -> pa.Table:
    """Bars of one symbol with start <= ts < end, oldest first, as `STORED_BAR_SCHEMA`.

    `limit` keeps the first so many, or the last so many if `newest`. `with_rollups`: a bar of 5m or 1h that
    is not stored is made of its minutes, if there are any; its `source` is "rollup" and its `revision` 0.
    """
    require_aware(start, end)
    window = Windows([symbol], [start], [end])
    async with opened(source) as database, database.connection() as connection:
        if with_rollups:
            rows = await fetch_with_rollups(connection, interval, window, limit=limit, newest=newest)
        else:
            rows = await fetch(connection, interval, window, EVERYTHING, limit=limit, newest=newest)
    return await asyncio.to_thread(_arrow, rows, [symbol], interval)


async def read_many(source: Database | str, symbols: Sequence[str], interval: Interval) -> pa.Table:
    """All bars of many symbols, sorted by (symbol, ts), as `STORED_BAR_SCHEMA`.

    Uses two connections at once, so two symbols may come from different moments; one symbol never does.
    """

    async def lane(database: Database, names: Sequence[str]) -> pa.Table:
        unbounded = [None] * len(names)
        async with database.connection() as connection:
            rows = await fetch(connection, interval, Windows(names, unbounded, unbounded), EVERYTHING)
        return await asyncio.to_thread(_arrow, rows, names, interval)

    async with opened(source, _LANES) as database:
        lanes = _lanes(sorted(set(symbols)))
        parts = await asyncio.gather(*(lane(database, names) for names in lanes))
    return pa.concat_tables(parts) if parts else STORED_BAR_SCHEMA.empty_table()


async def opens(
    source: Database | str,
    symbol: str,
    interval: Interval,
    start: datetime | None = None,
    end: datetime | None = None,
) -> npt.NDArray[np.datetime64]:
    """Opens of the stored final bars with start <= ts < end, ascending, `datetime64[us]` in UTC.

    A bar that is not final counts as missing: its last values have still to come.
    """
    require_aware(start, end)
    async with opened(source) as database, database.connection() as connection:
        rows = await fetch(connection, interval, Windows([symbol], [start], [end]), ["marks", "ts"])
    return microseconds(rows["ts"][rows["is_final"]]).view("datetime64[us]")


async def _lock(connection: Connection, parts: Sequence[Batch]) -> None:
    """All locks of a write at once and in order, so that no two writers deadlock."""
    keys = (f"{part.interval} {symbol}" for part in parts for symbol in part.symbols)
    stripes = {crc32(key.encode()) % _LOCK_STRIPES for key in keys}
    await connection.execute(_LOCK, _LOCK_CLASS, sorted(stripes))
    for part in parts:
        await connection.execute(_HOLD, part.interval, _chunks(part))


def _chunks(batch: Batch) -> list[int]:
    """Numbers of the chunks of time that hold the batch, as TimescaleDB cuts it."""
    days = 365 if batch.interval.is_daily else 7
    numbers: list[int] = np.unique(batch.columns["ts"] // (days * 86_400_000_000)).tolist()
    return numbers


async def _write(connection: Connection, batch: Batch, asked_at: datetime | None) -> WriteResult:
    spans = batch.spans()
    fields = VALUES if asked_at is None else (*VALUES, "ingested_at")
    asked_us = None if asked_at is None else (asked_at - _EPOCH) // timedelta(microseconds=1)
    stored = await _stored(connection, batch, spans, fields)
    verdict = await asyncio.to_thread(compare, batch, spans, stored, asked_us)
    try:
        if len(verdict.new):
            await _insert(connection, batch.take(verdict.new))
        if len(verdict.revised):
            await _revise(connection, batch.take(verdict.revised))
    except asyncpg.CheckViolationError as error:
        raise BadBars(f"bars break {error.constraint_name}: {error.detail}") from error
    except asyncpg.UniqueViolationError as error:
        raise StorageError(
            f"another program wrote the same bars: {error.detail} Write them again."
        ) from error
    inserted, revised = len(verdict.new), len(verdict.revised)
    if inserted or revised:
        await _verify_compressed(connection, batch, spans, len(stored["ts"]) + inserted, asked_us)
    touched = batch.columns["symbol"][np.concatenate([verdict.new, verdict.revised])]
    counts = zip(*np.unique(touched, return_counts=True), strict=True)
    changed = {(batch.interval, batch.symbols[symbol]): int(count) for symbol, count in counts}
    return WriteResult(inserted, revised, len(batch) - inserted - revised, verdict.corrected, changed)


async def _verify_compressed(
    connection: Connection, batch: Batch, spans: Spans, count: int, asked_us: int | None
) -> None:
    """Read again what went into compressed chunks: TimescaleDB has lost rows there, and doubled keys."""
    first, last = moments(np.array([batch.columns["ts"].min(), batch.columns["ts"].max()]))
    if not await connection.fetchval(_IN_COLUMNSTORE, batch.interval, first, last):
        return
    stored = await _stored(connection, batch, spans, (*VALUES, "ingested_at"))
    verdict = await asyncio.to_thread(compare, batch, spans, stored, asked_us)
    if len(stored["ts"]) != count or len(verdict.new) or len(verdict.revised):
        raise StorageError(
            f"after a write into compressed chunks {len(stored['ts'])} bars are stored where {count} should "
            f"be, {len(verdict.new)} are missing and {len(verdict.revised)} differ. Write them again."
        )


async def _stored(
    connection: Connection, batch: Batch, spans: Spans, fields: Sequence[str]
) -> dict[str, Array]:
    windows = Windows(
        [batch.symbols[symbol] for symbol in spans.symbol.tolist()],
        moments(spans.first),
        [moment + timedelta(microseconds=1) for moment in moments(spans.last)],
    )
    return await fetch(connection, batch.interval, windows, fields)


async def _insert(connection: Connection, batch: Batch) -> None:
    unit = "datetime64[M]" if batch.interval is Interval.M1 else "datetime64[Y]"
    starts = np.unique(batch.columns["ts"].view("datetime64[us]").astype(unit)).astype("datetime64[us]")
    await connection.execute(_PARTITIONS, batch.interval, moments(starts))
    await copy_in(connection, candle_table(batch.interval), batch.copy_columns(), len(batch))


async def _revise(connection: Connection, batch: Batch) -> None:
    table, columns = candle_table(batch.interval), batch.copy_columns()
    await connection.execute(_STAGE.format(columns=", ".join(columns), table=table))
    await copy_in(connection, "staged_bars", columns, len(batch))
    await connection.execute("ANALYZE staged_bars")
    changed = [name for name in columns if name not in {"symbol", "interval", "ts"}]
    assignments = ", ".join(
        (_ASSIGN_KNOWN if name in {"volume", "trade_count"} else _ASSIGN).format(name=name)
        for name in changed
    )
    span = moments(np.array([batch.columns["ts"].min(), batch.columns["ts"].max()]))
    await connection.execute(_REVISE.format(table=table, assignments=assignments), batch.interval, *span)
    await connection.execute("DROP TABLE staged_bars")


def _arrow(rows: dict[str, Array], symbols: Sequence[str], interval: Interval) -> pa.Table:
    volume, trade_count = rows["volume"], rows["trade_count"]
    columns = {
        **rows,
        "symbol": _words(rows["window"], symbols),
        "interval": _words(np.zeros_like(rows["window"]), [interval]),
        "ts": microseconds(rows["ts"]),
        "volume": pa.array(volume, mask=np.isnan(volume)),
        "trade_count": pa.array(trade_count, mask=trade_count < 0),
        "source": _unpadded(rows["source"]),
        "ingested_at": microseconds(rows["ingested_at"]),
    }
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in STORED_BAR_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=STORED_BAR_SCHEMA)


def _words(codes: Array, words: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes, pa.array(list(words), pa.string())).cast(pa.string())


def _unpadded(padded: Array) -> pa.Array:
    """Texts out of their blank-padded form; there are few different ones."""
    raw = pa.Array.from_buffers(pa.binary(padded.itemsize), len(padded), [None, pa.py_buffer(padded)])
    coded = raw.dictionary_encode()
    return _words(coded.indices.to_numpy(), [word.decode().rstrip() for word in coded.dictionary.to_pylist()])


def _lanes(symbols: Sequence[str]) -> list[Sequence[str]]:
    size = max(1, -(-len(symbols) // _LANES))
    return [symbols[start : start + size] for start in range(0, len(symbols), size)]
