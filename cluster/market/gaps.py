"""Gaps: the bars that the calendar expects and the store does not have."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from cluster.market.instants import Instants, to_moment
from cluster.market.intervals import Interval


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
    if not len(missing):
        return []
    breaks = np.flatnonzero(np.diff(missing) > 1) + 1
    return [_gap(expected, run[0], run[-1], interval) for run in np.split(missing, breaks)]


def _gap(expected: Instants, first: int, last: int, interval: Interval) -> Gap:
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
