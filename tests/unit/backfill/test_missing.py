from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from cluster.backfill.missing import OPEN, Cause, explained
from cluster.market.gaps import Gap
from cluster.market.instants import Instants
from cluster.market.intervals import Interval
from cluster.storage.backfill_merge import Span

QUEUED, NONE = Cause("queued"), Cause("no_data", "x")


def hours(count: int) -> Instants:
    return np.datetime64("2020-01-01T00:00:00", "us") + np.arange(count) * np.timedelta64(1, "h")


def at(hour: int) -> datetime:
    return datetime(2020, 1, 1, hour, tzinfo=UTC)


def gap(start: int, end: int) -> Gap:
    return Gap(at(start), at(end), end - start)


def test_a_range_is_split_where_its_cause_changes() -> None:
    causes = [(Span(at(2), at(4)), QUEUED), (Span(at(3), at(6)), NONE)]
    assert explained(hours(10), np.arange(1, 9), Interval.H1, causes) == [
        (gap(1, 2), OPEN),
        (gap(2, 4), QUEUED),
        (gap(4, 6), NONE),
        (gap(6, 9), OPEN),
    ]


def test_ranges_of_the_same_cause_that_touch_are_one() -> None:
    causes = [(Span(at(1), at(2)), QUEUED), (Span(at(2), at(3)), QUEUED)]
    assert explained(hours(4), np.array([1, 2]), Interval.H1, causes) == [(gap(1, 3), QUEUED)]


def test_a_cause_that_covers_only_stored_bars_explains_nothing() -> None:
    causes = [(Span(at(0), at(3)), Cause("given_up"))]
    assert explained(hours(4), np.array([3]), Interval.H1, causes) == [(gap(3, 4), OPEN)]


def test_nothing_is_missing_when_everything_is_stored() -> None:
    nothing = np.array([], np.int64)
    assert explained(hours(2), nothing, Interval.H1, [(Span(at(0), at(1)), QUEUED)]) == []
