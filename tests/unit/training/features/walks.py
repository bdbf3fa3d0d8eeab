"""Bar tables for the feature tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

STEPS_A_BAR = 8


def bars(
    close: ArrayLike,
    *,
    open_: ArrayLike | None = None,
    high: ArrayLike | None = None,
    low: ArrayLike | None = None,
    volume: ArrayLike | None = None,
) -> pa.Table:
    """Minute bars of these closes; what is not given is the close itself, volume 10."""
    close = np.asarray(close, dtype=np.float64)
    minutes = np.arange(len(close)).astype("datetime64[m]").astype("datetime64[us]")
    return pa.table(
        {
            "ts": pa.array(minutes).cast(pa.timestamp("us", "UTC")),
            "open": np.asarray(close if open_ is None else open_, dtype=np.float64),
            "high": np.asarray(close if high is None else high, dtype=np.float64),
            "low": np.asarray(close if low is None else low, dtype=np.float64),
            "close": close,
            "volume": np.asarray(np.full(len(close), 10.0) if volume is None else volume, dtype=np.float64),
        }
    )


def walk(length: int, seed: int, step: float = 0.001) -> pa.Table:
    """Bars of a pure random walk of the log price: nothing of it can be forecast."""
    random = np.random.default_rng(seed)
    path = np.exp(np.cumsum(random.normal(0, step, (length, STEPS_A_BAR)))).reshape(length, STEPS_A_BAR) * 100
    open_ = np.concatenate(([100.0], path[:-1, -1]))
    return bars(
        path[:, -1],
        open_=open_,
        high=np.maximum(path.max(axis=1), open_),
        low=np.minimum(path.min(axis=1), open_),
        volume=np.round(random.lognormal(8, 1, length)),
    )


def with_rows(table: pa.Table, name: str, rows: Sequence[int] | slice, value: ArrayLike) -> pa.Table:
    """The same bars with one column overwritten on some rows; NaN stays NaN, it does not become null."""
    column = numbers(table, name).copy()
    column[rows] = value
    return table.set_column(table.column_names.index(name), name, pa.array(column))


def times(table: pa.Table, prices: float, volume: float) -> pa.Table:
    """The same bars in other units."""
    factors = {"open": prices, "high": prices, "low": prices, "close": prices, "volume": volume}
    for name, factor in factors.items():
        column = pa.array(numbers(table, name) * factor)
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """One column as float64."""
    return np.asarray(table[name].to_numpy(), dtype=np.float64)
