"""Bars on their way into the database: an Arrow table as sorted NumPy columns, compared with the stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import BadBars
from cluster.market.bars import BAR_SCHEMA
from cluster.market.intervals import Interval
from cluster.storage.copy_format import Array, Column, Values, Words, microseconds, timestamps

PRICES = ("open", "high", "low", "close")
_LONGEST_HOLE = 64  # in bars; a longer one ends a span, so that little is read that is not compared


class Spans(NamedTuple):
    """Ranges of time of one symbol each; `symbol` is its index, `first` and `last` open in microseconds."""

    symbol: Array
    first: Array
    last: Array


class Verdict(NamedTuple):
    """Indices of the bars of a batch that are not stored yet, and of those that change a stored bar."""

    new: Array
    revised: Array
    corrected: int = 0
    """How many of the revised change a bar that is final."""


@dataclass(frozen=True)
class Batch:
    """Bars of one interval, each (symbol, ts) once, sorted by it.

    `columns`: symbol and source (index into `symbols` and `sources`), ts (int64, microseconds since 1970
    UTC), the prices, volume (NaN: unknown), trade_count (-1: unknown), is_final, aligned.
    """

    interval: Interval
    symbols: Sequence[str]
    sources: Sequence[str]
    columns: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.columns["ts"])

    def take(self, index: Array) -> Batch:
        """The bars at `index`, which must ascend."""
        if len(index) == len(self):
            return self
        return replace(self, columns={name: values[index] for name, values in self.columns.items()})

    def spans(self) -> Spans:
        """The fewest ranges of time that hold all bars without long holes."""
        symbol, ts = self.columns["symbol"], self.columns["ts"]
        longest_us = _LONGEST_HOLE * self.interval.seconds * 1_000_000
        breaks = np.flatnonzero((np.diff(symbol) != 0) | (np.diff(ts) > longest_us)) + 1
        first, last = np.append(0, breaks), np.append(breaks, len(ts)) - 1
        return Spans(symbol[first], ts[first], ts[last])

    def copy_columns(self) -> dict[str, Column]:
        """The columns as the COPY stream wants them, by the name of the table's column."""
        at, intervals = self.columns, np.zeros(len(self), dtype=np.int8)
        return {
            "ts": timestamps(at["ts"]),
            **{name: Values(at[name], ">f8") for name in PRICES},
            "volume": Values(at["volume"], ">f8", _if_any(np.isnan(at["volume"]))),
            "trade_count": Values(at["trade_count"], ">i8", _if_any(at["trade_count"] < 0)),
            "is_final": Values(at["is_final"], "?"),
            "aligned": Values(at["aligned"], "?"),
            "symbol": Words([word.encode() for word in self.symbols], at["symbol"]),
            "interval": Words([self.interval.encode()], intervals),
            "source": Words([word.encode() for word in self.sources], at["source"]),
        }


def batches(table: pa.Table) -> list[Batch]:
    """The bars of `table` (`BAR_SCHEMA`) by interval, in alphabetical order.

    Of bars with the same key a final one wins over one that is not, then the later row wins. Raises
    `BadBars` when columns are missing or of another type, or hold nulls, NaN or unknown intervals.
    """
    rows = _conformed(table)
    names = sorted(pc.unique(rows["interval"]).to_pylist())
    unknown = sorted(set(names) - set(Interval))
    if unknown:
        raise BadBars(f"interval {unknown[0]!r} is unknown; expected one of {', '.join(Interval)}")
    if len(names) == 1:
        return [_batch(rows, Interval(names[0]))]
    return [_batch(rows.filter(pc.equal(rows["interval"], name)), Interval(name)) for name in names]


def compare(batch: Batch, spans: Spans, stored: Mapping[str, Array], asked_us: int | None = None) -> Verdict:
    """Which bars are new and which change what is `stored`, the bars in the spans in their order.

    An unknown volume or trade count changes nothing, and a bar that is not final never changes a final one.
    What was stored after `asked_us` (microseconds since 1970; `ingested_at` is among the columns then) may
    be newer than the batch, and stays, unless the batch has it final for the first time.
    """
    place = _places(batch, spans.symbol[stored["window"]], microseconds(stored["ts"]))
    known = np.flatnonzero(place >= 0)
    ours = batch.take(known).columns
    theirs = {
        name: _taken(stored[name], place[known]) for name in (*PRICES, "volume", "trade_count", "is_final")
    }
    differs = np.zeros(len(known), dtype=bool)
    for name in (*PRICES, "is_final"):
        differs |= ours[name] != theirs[name]
    differs |= (ours["volume"] != theirs["volume"]) & ~np.isnan(ours["volume"])
    differs |= (ours["trade_count"] != theirs["trade_count"]) & (ours["trade_count"] >= 0)
    differs &= ours["is_final"] | ~theirs["is_final"]
    if asked_us is not None:
        ingested_us = microseconds(_taken(stored["ingested_at"], place[known])).astype(np.int64)
        differs &= (ingested_us <= asked_us) | (ours["is_final"] & ~theirs["is_final"])
    corrected = int(np.count_nonzero(differs & theirs["is_final"]))
    return Verdict(np.flatnonzero(place < 0), known[differs], corrected)


def _taken(values: Array, index: Array) -> Array:
    """`values[index]`, without a copy when that is all of them in their order."""
    whole = len(index) == len(values) and bool(np.all(np.diff(index) == 1))
    return values if whole else values[index]


def _places(batch: Batch, symbol: Array, ts: Array) -> Array:
    """For each bar of `batch` the row of the stored (symbol, ts), sorted like it, with its key, or -1."""
    places = np.full(len(batch), -1, dtype=np.int64)
    every = np.arange(len(batch.symbols) + 1)
    cuts, stored_cuts = np.searchsorted(batch.columns["symbol"], every), np.searchsorted(symbol, every)
    for one in np.flatnonzero(np.diff(stored_cuts)):
        rows, begin = slice(cuts[one], cuts[one + 1]), stored_cuts[one]
        ours, theirs = batch.columns["ts"][rows], ts[begin : stored_cuts[one + 1]]
        nearest = np.minimum(np.searchsorted(theirs, ours), len(theirs) - 1)
        places[rows] = np.where(theirs[nearest] == ours, begin + nearest, -1)
    return places


def _conformed(table: pa.Table) -> pa.Table:
    missing = [name for name in BAR_SCHEMA.names if name not in table.schema.names]
    if missing:
        raise BadBars(f"bars lack the column(s) {', '.join(missing)}; expected {', '.join(BAR_SCHEMA.names)}")
    try:
        return table.select(BAR_SCHEMA.names).cast(BAR_SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise BadBars(f"bars are not of the types of BAR_SCHEMA: {error}") from error


def _batch(rows: pa.Table, interval: Interval) -> Batch:
    symbols, symbol = _coded(rows["symbol"])
    sources, source = _coded(rows["source"])
    columns = {
        "symbol": symbol,
        "ts": rows["ts"].cast(pa.int64()).to_numpy(),
        **{name: rows[name].to_numpy() for name in PRICES},
        "volume": _volume(rows["volume"]),
        "trade_count": _trade_count(rows["trade_count"]),
        "is_final": rows["is_final"].to_numpy(),
        "aligned": rows["aligned"].to_numpy(),
        "source": source,
    }
    batch = Batch(interval, symbols, sources, columns)
    order = _order(symbol, columns["ts"], columns["is_final"])
    if order is None:
        return batch
    return replace(batch, columns={name: values[order] for name, values in columns.items()})


def _order(symbol: Array, ts: Array, is_final: Array) -> Array | None:
    """Indices that sort by (symbol, ts) and leave of equal keys the one that wins; None: as they are."""
    if _ascends(symbol, ts):
        return None
    by_time = np.argsort(ts, kind="stable")
    small = np.min_scalar_type(int(symbol.max()))  # NumPy sorts 16-bit numbers in linear time
    order = by_time[np.argsort(symbol[by_time].astype(small), kind="stable")]
    if _ascends(symbol[order], ts[order]):
        return order
    order = np.lexsort((is_final, ts, symbol))
    same_as_next = (np.diff(symbol[order]) == 0) & (np.diff(ts[order]) == 0)
    winners: npt.NDArray[np.int64] = order[np.append(~same_as_next, True)]
    return winners


def _ascends(symbol: Array, ts: Array) -> bool:
    later_symbol, same_symbol = symbol[1:] > symbol[:-1], symbol[1:] == symbol[:-1]
    return bool(np.all(later_symbol | (same_symbol & (ts[1:] > ts[:-1]))))


def _coded(names: pa.ChunkedArray) -> tuple[list[str], Array]:
    """The different names in alphabetical order, and for each row the index of its name."""
    encoded = names.combine_chunks().dictionary_encode()
    words = encoded.dictionary.to_pylist()
    if "" in words:
        raise BadBars("a symbol or source is empty; expected at least one character")
    order = sorted(range(len(words)), key=words.__getitem__)
    ranks = np.empty(len(words), dtype=np.int32)
    ranks[order] = np.arange(len(words), dtype=np.int32)
    return [words[index] for index in order], ranks[encoded.indices.to_numpy()]


def _volume(volume: pa.ChunkedArray) -> Array:
    values: Array = volume.to_numpy().astype(np.float64, copy=False)
    if np.isnan(values).sum() != volume.null_count:
        raise BadBars("volume is NaN; expected a number, or null where it is unknown")
    return values


def _trade_count(trade_count: pa.ChunkedArray) -> Array:
    values: Array = pc.fill_null(trade_count, -1).to_numpy()
    if (values < 0).sum() != trade_count.null_count:
        raise BadBars("trade_count is negative; expected a count, or null where it is unknown")
    return values


def _if_any(flags: Array) -> Array | None:
    return flags if flags.any() else None
