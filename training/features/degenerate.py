"""Where an indicator says nothing: flat prices, no trading, unknown volume.

TA-Lib answers such windows with finite, misleading numbers (a frozen RSI, a Williams %R "at the high"), so
those rows become NaN. Every mask at row t looks at rows up to t only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

TINY = 1e-9
"""Relative size, against the price, at or below which a range or a move counts as none."""


def changed(x: FloatArray) -> BoolArray:
    """Tell on which rows a positive series moved from the row before; the first row did not."""
    moved = np.zeros(len(x), dtype=np.bool_)
    step = np.abs(x[1:] - x[:-1])
    np.greater(step, TINY * x[1:], out=moved[1:])
    return moved


def any_in_last(active: BoolArray, rows: int) -> BoolArray:
    """Tell whether any of the last `rows` rows, the present one included, is active."""
    seen, width = active.copy(), 1
    while width < rows:
        step = min(width, rows - width)
        seen[step:] |= seen[:-step].copy()
        width += step
    return seen


def blank(values: FloatArray, where: BoolArray) -> FloatArray:
    """Set rows of `values` to NaN, in place, and return it."""
    if where.any():
        values[where] = np.nan
    return values


def without_move(active: BoolArray, rows: int) -> BoolArray:
    """Tell where none of the last `rows` rows is active."""
    return ~any_in_last(active, rows)


def hardly_traded(traded: BoolArray, known: BoolArray, rows: int) -> BoolArray:
    """Tell where fewer than half of the last `rows` bars traded, or the volume of any of them is unknown."""
    count = np.cumsum(traded, dtype=np.int32)
    count[rows:] -= count[:-rows].copy()
    return (2 * count < rows) | any_in_last(~known, rows)
