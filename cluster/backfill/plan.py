"""Which ranges to ask a provider for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import numpy as np

from cluster.errors import InputError
from cluster.market.gaps import Gap
from cluster.market.instants import Instants, to_instant, to_moment
from cluster.market.intervals import Interval
from cluster.storage.backfill_merge import Span


def settled_end(end: datetime, interval: Interval, now: datetime, grace_s: float) -> datetime:
    """`end`, or earlier so that every bar before it has closed at least `grace_s` seconds before `now`.

    A bar that still runs is not missing. A daily bar counts as closed a day after its session opened.
    """
    return min(end, now - timedelta(seconds=interval.seconds + grace_s))


def within(expected: Instants, spans: Iterable[Span]) -> Instants:
    """The opens of `expected` (ascending) that lie in one of `spans`."""
    chosen = np.zeros(len(expected), dtype=bool)
    for span in spans:
        first, last = np.searchsorted(expected, [to_instant(span.start), to_instant(span.end)])
        chosen[first:last] = True
    return expected[chosen]


def ranges(gaps: Iterable[Gap], expected: Instants, interval: Interval, page_bars: int) -> list[Span]:
    """The gaps as ranges of at most `page_bars` expected bars and at most as many slots of the interval.

    `expected` holds the opens the gaps were found in, ascending. A range begins at an expected bar and ends
    one interval after its last one at the latest, so closed hours between two ranges belong to neither.
    """
    if page_bars < 1:
        raise InputError(f"a page holds at least one bar, {page_bars} was given")
    return [span for gap in gaps for span in _pages(gap, expected, interval, page_bars)]


def _pages(gap: Gap, expected: Instants, interval: Interval, page_bars: int) -> Iterator[Span]:
    step = np.timedelta64(interval.seconds, "s")
    first, last = np.searchsorted(expected, [to_instant(gap.start), to_instant(gap.end)])
    while first < last:
        in_reach = np.searchsorted(expected, expected[first] + step * (page_bars - 1), "right")
        after = min(first + page_bars, in_reach, last)
        end = expected[after - 1] + step
        if after < last:
            end = min(end, expected[after])  # sessions can be less than a day apart
        yield Span(to_moment(expected[first]), min(to_moment(end), gap.end))
        first = after
