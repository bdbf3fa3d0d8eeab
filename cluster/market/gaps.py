"""Gaps: the bars that the calendar expects and the store does not have."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from cluster.market.instants import Instants, to_moment
from cluster.market.intervals import Interval

Places = npt.NDArray[np.int64]
"""Indices into an array."""
Runs = npt.NDArray[np.int64]
"""First and last place of each run, shape (N, 2)."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A run of missing bars, as a half-open range on bar open time, `start <= ts < end`."""

    start: datetime
    end: datetime
    missing: int
    """Number of expected bars in the range; all of them are missing."""


def find(expected: Instants, stored: Instants, interval: Interval) -> list[Gap]:
    """The ranges of `expected` opens that are not in `stored`; neighbours in `expected` form one range.

    `expected` is ascending and unique (`calendars.expected_opens`); `stored` comes in any order and may hold
    more. A range ends one interval after its last missing open, or at the next expected bar where that comes
    first, so a range never holds a stored bar of the calendar, and ranges never overlap.
    """
    missing = np.flatnonzero(~_contains(stored, expected))
    return [gap for gap, _ in labelled(expected, missing, np.zeros(len(missing), np.int64), interval)]


def labelled(
    expected: Instants, missing: Places, labels: Places, interval: Interval
) -> list[tuple[Gap, int]]:
    """The ranges of missing bars, each of one label; ranges as in `find`.

    `missing` holds places in `expected`, ascending, and `labels` one number for each of them.
    """
    if not len(missing):
        return []
    breaks = np.flatnonzero((np.diff(missing) > 1) | (np.diff(labels) != 0)) + 1
    runs = zip(np.split(missing, breaks), np.split(labels, breaks), strict=True)
    return [(gap_of(expected, run[0], run[-1], interval), int(label[0])) for run, label in runs]


def runs(flags: npt.NDArray[np.bool_]) -> Runs:
    """Where `flags` is true without a break."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    found: Runs = edges.reshape(-1, 2) - np.array([0, 1])
    return found


def gap_of(expected: Instants, first: int, last: int, interval: Interval) -> Gap:
    """The range of the missing bars at the places `first` to `last` of `expected`."""
    end = expected[last] + np.timedelta64(interval.seconds, "s")
    if last + 1 < len(expected):
        end = min(end, expected[last + 1])
    return Gap(to_moment(expected[first]), to_moment(end), int(last - first + 1))


def _contains(stored: Instants, wanted: Instants) -> npt.NDArray[np.bool_]:
    """Which of `wanted` are in `stored`; by binary search, as both are long and nearly always sorted."""
    if not len(stored):
        return np.zeros(len(wanted), dtype=bool)
    known, keys = (np.asarray(t, "datetime64[us]").view(np.int64) for t in (np.sort(stored), wanted))
    position = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found: npt.NDArray[np.bool_] = known[position] == keys
    return found
