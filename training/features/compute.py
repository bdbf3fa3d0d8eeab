"""Bars in, the 50 features out: batch and online are this one function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cluster.errors import BadBars
from training.features import definition
from training.features.degenerate import BoolArray, FloatArray
from training.features.indicators import Bars, log_returns, momentum, trend, volatility, volume
from training.features.wavelets import wavelet

COLUMNS = ("ts", "open", "high", "low", "close", "volume")
PRICE_LIMIT = 1e30
"""A price at or above this is no price: sums of its squares would swallow every other bar."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of one symbol.

    `values` is float32 of shape (T, 50), one row a bar of the input in its order; NaN before the warm-up of
    each feature, where a feature is undefined (flat prices, no trading), and on the whole row of an invalid
    bar. Its memory is column-major, as in Arrow: each feature is one contiguous run. `warmup` is the number
    of valid bars before the first complete row; `digest` names the feature set.
    """

    values: NDArray[np.float32]
    names: tuple[str, ...] = definition.NAMES
    warmup: int = definition.WARMUP_BARS
    digest: str = definition.DIGEST


def compute(bars: pa.Table | pd.DataFrame) -> Features:
    """Compute all features of one symbol from its bars, oldest first.

    `bars` has the columns ts, open, high, low, close, volume; null volume means unknown. Row t of the result
    depends on bars up to t only, and the last row agrees with the full history when there are 512 valid bars
    or more. Invalid bars (a price missing, infinite or not positive, high below low) are left out of every
    window and get a row of NaN. Raises BadBars when a column is missing or no number, or ts does not strictly
    rise.
    """
    table = _as_table(bars)
    _check_order(table["ts"])
    columns = [_numbers(table, name) for name in COLUMNS[1:]]
    valid = _valid(*columns[:4])
    if valid.all():
        return Features(_lines(columns).T)
    lines = np.full((len(definition.NAMES), len(valid)), np.nan, dtype=np.float32)
    lines[:, valid] = _lines([column[valid] for column in columns])
    return Features(lines.T)


def _as_table(bars: pa.Table | pd.DataFrame) -> pa.Table:
    names = list(bars.columns if isinstance(bars, pd.DataFrame) else bars.column_names)
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise BadBars(f"bars need the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}")
    if isinstance(bars, pd.DataFrame):
        return pa.Table.from_pandas(bars[list(COLUMNS)], preserve_index=False)
    return bars


def _check_order(ts: pa.ChunkedArray) -> None:
    """Raise BadBars unless ts strictly rises: a doubled or late bar would silently change every average."""
    if ts.null_count:
        raise BadBars(f"ts is missing on {ts.null_count} bars; every bar needs its open time")
    times = ts.to_numpy()
    late = np.flatnonzero(times[1:] <= times[:-1])
    if late.size:
        row = int(late[0]) + 1
        raise BadBars(
            f"bars must be oldest first, one per ts; row {row} has {times[row]} after {times[row - 1]}. "
            "Sort by ts and drop duplicates"
        )


def _numbers(table: pa.Table, name: str) -> FloatArray:
    try:
        column = table[name].cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadBars(f"column {name} holds {table[name].type}, expected numbers") from error
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _valid(open_: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray) -> BoolArray:
    valid = high >= low
    for price in (open_, high, low, close):
        valid &= (price > 0) & (price < PRICE_LIMIT)
    return valid


def _lines(columns: list[FloatArray]) -> NDArray[np.float32]:
    """Compute the features of valid bars, shape (50, T); columns are open, high, low, close, volume."""
    lines = np.empty((len(definition.NAMES), len(columns[0])), dtype=np.float32)
    if lines.size:
        with np.errstate(all="ignore"):  # a degenerate window divides by zero: it is blanked or clipped
            for line, start, values in zip(
                lines, definition.WARMUP.values(), _families(columns), strict=True
            ):
                line[:start] = np.nan
                line[start:] = values[start:]
    return np.clip(lines, -definition.MAX_ABS, definition.MAX_ABS, out=lines)


def _families(columns: list[FloatArray]) -> Iterator[FloatArray]:
    bars = Bars.scaled(*columns)
    for family in (trend, momentum, volatility, volume):
        yield from family(bars)
    yield from wavelet(log_returns(bars.close))
