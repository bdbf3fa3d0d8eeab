"""Windows of rows by the row they end at; nothing is copied until a batch is gathered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

BLANK = -1
"""Row number of "there is no such row"; `gather` answers NaN for it."""


def row_numbers(first: Rows, ends: Rows, window: int, lengths: Rows | None = None) -> Rows:
    """Row numbers (N, window) of the windows that end at `ends`, oldest first.

    `first` (R,) holds for every row the first row of its symbol: a window never reaches beyond it.
    `lengths` (N,) cuts each window to its newest rows. Rows that are not there are `BLANK`.
    """
    rows = ends[:, None] + np.arange(1 - window, 1)
    oldest = first[ends]
    if lengths is not None:
        oldest = np.maximum(oldest, ends - lengths + 1)
    return np.where(rows < oldest[:, None], BLANK, rows)


def gather(values: Floats, first: Rows, ends: Rows, window: int, lengths: Rows | None = None) -> Floats:
    """Windows (N, window, F) of `values` (R, F); absent rows are all NaN. See `row_numbers`."""
    rows = row_numbers(first, ends, window, lengths)
    windows: Floats = values[rows]
    windows[rows == BLANK] = np.nan
    return windows


def fit_window(history: Floats, window: int) -> Floats:
    """(N, L, F) -> (N, window, F): the newest `window` rows, with NaN rows in front when L is smaller."""
    count, length, width = history.shape
    if length >= window:
        return history[:, length - window :]
    padded = np.full((count, window, width), np.nan, dtype=np.float32)
    padded[:, window - length :] = history
    return padded


def observed_rows(windows: Floats) -> Rows:
    """Rows (N,) of each window (N, L, F) that hold at least one finite value."""
    counts: Rows = np.isfinite(windows).any(axis=2).sum(axis=1, dtype=np.int64)
    return counts
