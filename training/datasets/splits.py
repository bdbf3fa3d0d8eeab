"""Chronological splits with purge and embargo, so that no label is known on both sides of a cut.

Times are positions on one common time line (0, 1, 2, ... = the sorted distinct bar times of all symbols),
so that a cut falls at the same moment for every symbol. A row's span is [start, end]: the moment of its
features and the moment its label is known.
Source: Lopez de Prado, Advances in Financial Machine Learning (2018), ch. 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """Start and end position (R,) of every row of a dataset on the common time line."""

    start: Rows
    end: Rows


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts, oldest part first."""

    train: Rows
    calibration: Rows
    test: Rows


@dataclass(frozen=True)
class Fold:
    """Row numbers of one forward-chaining fold: everything in `train` is over before `test` begins."""

    train: Rows
    test: Rows


def purge(spans: Spans, rows: Rows, test: Rows, embargo: int) -> Rows:
    """Those of `rows` whose span keeps more than `embargo` bars away from the block of `test` spans."""
    if len(test) == 0:
        return rows
    block_start, block_end = spans.start[test].min(), spans.end[test].max()
    before = spans.end[rows] + embargo < block_start
    after = spans.start[rows] - embargo > block_end
    kept: Rows = rows[before | after]
    return kept


def chronological(spans: Spans, rows: Rows, train: float, calibration: float, embargo: int) -> Split:
    """Cut `rows` by time into train, calibration and test (the rest); shares are of the distinct times."""
    parts = _cut(spans, rows, [train, train + calibration])
    middle = purge(spans, parts[1], parts[2], embargo)
    return Split(train=purge(spans, parts[0], parts[1], embargo), calibration=middle, test=parts[2])


def forward_folds(spans: Spans, rows: Rows, count: int, embargo: int) -> list[Fold]:
    """Cut `rows` into count + 1 equal stretches of time; each but the first is tested on all before it."""
    parts = _cut(spans, rows, [k / (count + 1) for k in range(1, count + 1)])
    return [
        Fold(train=purge(spans, np.concatenate(parts[:k]), parts[k], embargo), test=parts[k])
        for k in range(1, count + 1)
    ]


def _cut(spans: Spans, rows: Rows, shares: list[float]) -> list[Rows]:
    """`rows`, ordered by time, in len(shares) + 1 stretches cut at these shares of the distinct times."""
    ordered = rows[np.argsort(spans.start[rows], kind="stable")]
    times = np.unique(spans.start[ordered])
    cuts = [times[min(int(share * len(times)), len(times) - 1)] for share in shares]
    return np.split(ordered, np.searchsorted(spans.start[ordered], cuts))
