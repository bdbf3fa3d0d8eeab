"""Bars travel as Arrow tables of this one schema; nothing else crosses a module boundary in bulk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import BadBars
from cluster.market.instants import Instants, to_instant
from cluster.market.intervals import Interval

BAR_SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("interval", pa.string(), nullable=False),
        pa.field("ts", pa.timestamp("us", tz="UTC"), nullable=False),  # bar OPEN
        pa.field("open", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("close", pa.float64(), nullable=False),
        pa.field("volume", pa.float64()),  # null = unknown, never 0 for unknown
        pa.field("trade_count", pa.int64()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("is_final", pa.bool_(), nullable=False),
        pa.field("aligned", pa.bool_(), nullable=False),  # false: ts is off the grid of its interval
    ]
)
"""One row a bar, sorted by (symbol, interval, ts). Prices in quote currency, ts is the bar's open in UTC."""

PRICES = ("open", "high", "low", "close")

_LAX = pa.schema([field.with_nullable(nullable=True) for field in BAR_SCHEMA])
_REASON = pa.field("reason", pa.string())
_GRID_S = {
    Interval.M1: 60,
    Interval.M5: 300,
    Interval.M15: 900,
    Interval.M30: 1_800,
    Interval.H1: 900,  # hourly bars start at the session's open, and exchanges open at :00, :15, :30 or :45
    Interval.D1: 60,  # the session's open
}
_US_PER_S = 1_000_000
_HUNDREDFOLD = (89.0, 111.0)
"""No trade makes such a step, not even with the moves of the price around it."""
_EARLIEST = np.datetime64("1900-01-01", "us")
_REJECTED = b"rejected"
"""Key of the metadata that holds the rows which were left out of a table."""

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Validated:
    """The rows of a table that hold the invariants of a bar, and those that do not."""

    good: pa.Table
    """`BAR_SCHEMA`, sorted by (symbol, interval, ts), unique."""
    rejected: pa.Table
    """`BAR_SCHEMA` with nullable columns, plus the string column `reason`: all broken rules."""


def empty() -> pa.Table:
    """A table of `BAR_SCHEMA` without rows."""
    return BAR_SCHEMA.empty_table()


def from_columns(
    symbol: str,
    interval: Interval,
    ts: Instants,
    open: npt.ArrayLike,  # noqa: A002 - the column's name
    high: npt.ArrayLike,
    low: npt.ArrayLike,
    close: npt.ArrayLike,
    volume: npt.ArrayLike | None,
    *,
    source: str,
    is_final: bool | Flags = True,
    trade_count: npt.ArrayLike | None = None,
) -> pa.Table:
    """Build bars of one symbol and interval out of columns of length N; only the shapes are checked.

    `volume` NaN or `None` becomes null (unknown). `aligned` follows from `ts` and the grid of `interval`.
    Raises `BadBars` when the columns differ in length.
    """
    opens = np.asarray(ts, dtype="datetime64[us]")
    columns = {
        name: np.asarray(values, dtype=np.float64)
        for name, values in zip(PRICES, (open, high, low, close), strict=True)
    }
    _same_length(len(opens), columns)
    return pa.Table.from_arrays(
        [
            _repeat(symbol, len(opens)),
            _repeat(str(interval), len(opens)),
            pa.array(opens, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
            *(pa.array(values) for values in columns.values()),
            _optional(volume, pa.float64(), len(opens)),
            _optional(trade_count, pa.int64(), len(opens)),
            _repeat(source, len(opens)),
            pa.array(np.broadcast_to(np.asarray(is_final, dtype=bool), len(opens))),
            pa.array(on_grid(opens, interval)),
        ],
        schema=BAR_SCHEMA,
    )


def on_grid(ts: Instants, interval: Interval) -> Flags:
    """Which of `ts` lie on the grid that a bar of `interval` can start on."""
    aligned: Flags = ts.astype(np.int64) % (_GRID_S[interval] * _US_PER_S) == 0
    return aligned


def grid_is_interval(interval: Interval) -> bool:
    """Whether two bars on the grid that are one interval apart cannot have a third between them."""
    return _GRID_S[interval] == interval.seconds


def opens(table: pa.Table) -> Instants:
    """The column `ts` as `datetime64[us]` in UTC."""
    ts: Instants = table["ts"].cast(pa.int64()).to_numpy().view("datetime64[us]")
    return ts


def between(table: pa.Table, start: datetime, end: datetime) -> pa.Table:
    """The rows with `start <= ts < end`."""
    ts = opens(table)
    return table.filter(pa.array((ts >= to_instant(start)) & (ts < to_instant(end))))


def concat(tables: Iterable[pa.Table]) -> pa.Table:
    """All rows in the given order; `BAR_SCHEMA` even when there is no table."""
    return pa.concat_tables([empty(), *tables])


def reject(table: pa.Table, reasons: Sequence[str]) -> pa.Table:
    """The rows whose reason is empty; those with one are left out and travel along, see `with_rejected`."""
    bad = np.array([bool(reason) for reason in reasons], dtype=bool)
    if not bad.any():
        return table
    rejected = _explained(_conform(table), bad, [reason for reason in reasons if reason])
    before = rejected_of(table)
    return with_rejected(table.filter(pa.array(~bad)), pa.concat_tables([before, rejected]))


def with_rejected(table: pa.Table, rejected: pa.Table) -> pa.Table:
    """`table` with the rows that were left out of it, as in `Validated.rejected`, for `validate` to tell."""
    if not rejected.num_rows:
        return table
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rejected.schema) as stream:
        stream.write_table(rejected)
    return table.replace_schema_metadata({_REJECTED: sink.getvalue().to_pybytes()})


def rejected_of(table: pa.Table) -> pa.Table:
    """The rows that travel with `table`, as in `Validated.rejected`."""
    told = (table.schema.metadata or {}).get(_REJECTED)
    if told is None:
        return _LAX.append(_REASON).empty_table()
    return pa.ipc.open_stream(told).read_all()


def validate(table: pa.Table, now: datetime) -> Validated:
    """Split `table` into valid bars and rejected rows with their reasons.

    Rules: prices are finite, above zero and hold low <= min(open, close) <= max(open, close) <= high; a close
    is not about 100 times off both its neighbours, as when pence are told for pounds; volume is null or
    finite and >= 0; `ts` is neither after `now` nor before 1900, and on the grid of its interval or flagged
    `aligned = false`; (symbol, interval, ts) is unique, the first of several rows wins.
    Any order will do. Rows that were left out before and travel with `table` are told as rejected, too.
    Raises `BadBars` when columns or types differ from `BAR_SCHEMA`.
    """
    rows = _conform(table)
    order, repeated = _order(rows)
    reasons = [
        *_broken_rules(rows, now),
        ("a second bar of the same symbol, interval and ts", repeated),
        ("the close is about 100 times off the bars around it, as in another unit", _strays(rows, order)),
    ]
    bad: Flags = np.logical_or.reduce([mask for _, mask in reasons])
    good = rows.take(pa.array(order[~bad[order]])).cast(BAR_SCHEMA)
    texts = ["; ".join(text for text, mask in reasons if mask[row]) for row in np.flatnonzero(bad)]
    return Validated(good, pa.concat_tables([_explained(rows, bad, texts), rejected_of(table)]))


def _broken_rules(rows: pa.Table, now: datetime) -> Iterator[tuple[str, Flags]]:
    required = [_nulls(rows, field.name) for field in BAR_SCHEMA if not field.nullable]
    yield "a required value is missing", np.logical_or.reduce(required)
    yield from _impossible_values(rows)
    yield "ts is in the future", np.greater(_instants(rows), to_instant(now))
    yield "ts is before 1900, which a wrong unit explains", np.less(_instants(rows), _EARLIEST)
    yield from _off_grid(rows)


def _impossible_values(rows: pa.Table) -> Iterator[tuple[str, Flags]]:
    open_, high, low, close = prices = [_floats(rows, name) for name in PRICES]
    volume, unknown = _floats(rows, "volume"), _nulls(rows, "volume")
    usable = [np.isfinite(price) & (price > 0) for price in prices]
    yield "a price is not finite or not above zero", ~np.logical_and.reduce(usable)
    yield "high is below open, close or low", (high < open_) | (high < close) | (high < low)
    yield "low is above open or close", (low > open_) | (low > close)
    yield "volume is negative or not finite", ~unknown & ~(np.isfinite(volume) & (volume >= 0))


def _off_grid(rows: pa.Table) -> Iterator[tuple[str, Flags]]:
    ts, flagged = _instants(rows), pc.fill_null(rows["aligned"], pa.scalar(value=True))
    off, known = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    for interval in Interval:
        of_interval = pc.fill_null(pc.equal(rows["interval"], str(interval)), pa.scalar(value=False))
        chosen = of_interval.to_numpy()
        known |= chosen
        off[chosen] = ~on_grid(ts[chosen], interval)
    yield "ts is off the grid of its interval but flagged as aligned", off & flagged.to_numpy()
    yield f"interval is none of {', '.join(Interval)}", ~known


def _order(rows: pa.Table) -> tuple[npt.NDArray[np.intp], Flags]:
    """The stable order by (symbol, interval, ts), and which rows repeat the key of a row before them."""
    keys = [_instants(rows).astype(np.int64), _ranks(rows["interval"]), _ranks(rows["symbol"])]
    order = np.lexsort(keys)
    repeated = np.zeros(len(rows), dtype=bool)
    if len(rows):
        repeated[order[1:]] = np.logical_and.reduce([np.diff(key[order]) == 0 for key in keys])
    return order, repeated


def _strays(rows: pa.Table, order: npt.NDArray[np.intp]) -> Flags:
    """Which closes leave their neighbours by about 100-fold and come back."""
    strays = np.zeros(len(rows), dtype=bool)
    close = _floats(rows, "close")[order]
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.log(close[1:] / close[:-1])
    far = hundredfold(steps)
    if far.any():
        far &= _of_one_series(rows, order)
        strays[order[1:-1]] = far[:-1] & far[1:] & (steps[:-1] * steps[1:] < 0)
    return strays


def _of_one_series(rows: pa.Table, order: npt.NDArray[np.intp]) -> Flags:
    """For each row but the last, whether the next has the same symbol and interval."""
    keys = [_ranks(rows[name])[order] for name in ("symbol", "interval")]
    same: Flags = np.logical_and.reduce([np.diff(key) == 0 for key in keys])
    return same


def hundredfold(logs: Floats) -> Flags:
    """Which natural logarithms of ratios are those of about 100 or 1/100: of another unit of currency."""
    low, high = _HUNDREDFOLD
    size = np.abs(logs)
    found: Flags = (size >= np.log(low)) & (size <= np.log(high))
    return found


def _ranks(names: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Integers in the order of the names."""
    codes = names.combine_chunks().dictionary_encode(null_encoding="encode")
    rank_of_code = np.argsort(pc.sort_indices(codes.dictionary).to_numpy())
    ranks: npt.NDArray[np.int64] = rank_of_code[codes.indices.to_numpy()]
    return ranks


def _explained(rows: pa.Table, bad: Flags, texts: Sequence[str]) -> pa.Table:
    return rows.filter(pa.array(bad)).append_column(_REASON, pa.array(texts, pa.string()))


def _conform(table: pa.Table) -> pa.Table:
    """The columns in the order of `BAR_SCHEMA`, all nullable, so that a missing value can be reported."""
    given = {field.name: field.type for field in table.schema}
    wrong = [
        f"{f.name} {f.type} (given {given.get(f.name, 'none')})" for f in _LAX if given.get(f.name) != f.type
    ]
    extra = sorted(set(given) - set(_LAX.names))
    if wrong or extra:
        raise BadBars(
            f"bars need the columns of BAR_SCHEMA; expected {', '.join(wrong) or 'no more'}; extra {extra}"
        )
    return table.select(_LAX.names).cast(_LAX).combine_chunks()


def _floats(rows: pa.Table, name: str) -> Floats:
    values: Floats = pc.fill_null(rows[name], float("nan")).to_numpy()
    return values


def _nulls(rows: pa.Table, name: str) -> Flags:
    nulls: Flags = rows[name].is_null().to_numpy(zero_copy_only=False)
    return nulls


def _instants(rows: pa.Table) -> Instants:
    ts: Instants = pc.fill_null(rows["ts"].cast(pa.int64()), 0).to_numpy().view("datetime64[us]")
    return ts


def _repeat(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.string()), count)


def _optional(values: npt.ArrayLike | None, type_: pa.DataType, count: int) -> pa.Array:
    if values is None:
        return pa.nulls(count, type_)
    array = np.asarray(values)
    _same_length(count, {"volume or trade_count": array})
    unknown = np.isnan(array) if array.dtype.kind == "f" else None
    return pa.array(array, mask=unknown).cast(type_)


def _same_length(count: int, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
    for name, values in columns.items():
        if values.shape != (count,):
            raise BadBars(f"{name} has the shape {values.shape}, but there are {count} values of ts")
