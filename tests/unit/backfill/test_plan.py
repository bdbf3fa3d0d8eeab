"""From gaps to ranges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.backfill.plan import ranges, settled_end, within
from cluster.errors import InputError
from cluster.market import calendars, gaps
from cluster.market.instants import Instants, to_instant
from cluster.market.intervals import Interval
from cluster.storage.backfill_merge import Span

M1 = Interval.M1


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def minutes(start: datetime, count: int) -> Instants:
    return to_instant(start) + np.arange(count) * np.timedelta64(60, "s")


NOTHING: Instants = np.array([], dtype="datetime64[us]")


def test_the_inclusive_trap_is_eleven_minutes() -> None:
    """`BETWEEN '14:00' AND '14:10'` deletes eleven bars; the range ends at 14:11."""
    hour = minutes(at("2025-10-08T13:30"), 60)
    stored = hour[(hour < to_instant(at("2025-10-08T14:00"))) | (hour > to_instant(at("2025-10-08T14:10")))]
    found = gaps.find(hour, stored, M1)
    assert [gap.missing for gap in found] == [11]
    assert ranges(found, hour, M1, 1_000) == [Span(at("2025-10-08T14:00"), at("2025-10-08T14:11"))]


def test_a_long_gap_is_cut_into_pages() -> None:
    start = at("2025-10-08T00:00")
    day = minutes(start, 25)
    found = gaps.find(day, NOTHING, M1)
    assert ranges(found, day, M1, 10) == [
        Span(start, at("2025-10-08T00:10")),
        Span(at("2025-10-08T00:10"), at("2025-10-08T00:20")),
        Span(at("2025-10-08T00:20"), at("2025-10-08T00:25")),
    ]


def test_closed_hours_are_not_asked_for() -> None:
    """New York, Friday 2025-10-10 and Monday 2025-10-13: one gap on the calendar, two ranges to ask for."""
    start, end = at("2025-10-10T00:00"), at("2025-10-14T00:00")
    expected = calendars.expected_opens("XNYS", M1, start, end)
    found = gaps.find(expected, NOTHING, M1)
    assert len(found) == 1
    assert ranges(found, expected, M1, 400) == [
        Span(at("2025-10-10T13:30"), at("2025-10-10T20:00")),
        Span(at("2025-10-13T13:30"), at("2025-10-13T20:00")),
    ]


def test_daily_ranges_do_not_overlap_when_the_clocks_change_overnight() -> None:
    """A market that trades every day opens an hour earlier in UTC after the change: 23 hours later."""
    opens = [at("2025-03-08T14:30"), at("2025-03-09T13:30"), at("2025-03-10T13:30")]
    expected: Instants = np.array([to_instant(moment) for moment in opens])
    found = gaps.find(expected, NOTHING, Interval.D1)
    assert ranges(found, expected, Interval.D1, 1) == [
        Span(at("2025-03-08T14:30"), at("2025-03-09T13:30")),
        Span(at("2025-03-09T13:30"), at("2025-03-10T13:30")),
        Span(at("2025-03-10T13:30"), at("2025-03-11T13:30")),
    ]


def test_a_page_without_room_is_refused() -> None:
    with pytest.raises(InputError, match="at least one bar"):
        ranges([], NOTHING, M1, 0)


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)), st.integers(1, 50))
def test_ranges_hold_exactly_the_missing_bars_and_never_more_than_a_page(
    expected_minutes: set[int], stored_minutes: set[int], page: int
) -> None:
    start = at("2025-10-08T00:00")
    expected = minutes(start, 301)[sorted(expected_minutes)]
    stored = minutes(start, 301)[sorted(stored_minutes)]
    spans = ranges(gaps.find(expected, stored, M1), expected, M1, page)
    inside = {
        number
        for number in range(301)
        if any(span.start <= start + timedelta(minutes=number) < span.end for span in spans)
    }
    assert inside & expected_minutes == expected_minutes - stored_minutes
    assert all(left.end <= right.start for left, right in pairwise(spans))
    assert all(span.end - span.start <= timedelta(minutes=page) for span in spans)
    assert all(to_instant(span.start) in expected for span in spans)


def test_a_bar_that_still_runs_is_not_missing() -> None:
    now = at("2025-10-08T14:30:30")
    assert settled_end(at("2025-10-09T00:00"), M1, now, 10) == at("2025-10-08T14:29:20")
    assert settled_end(at("2025-10-08T12:00"), M1, now, 10) == at("2025-10-08T12:00")
    assert settled_end(at("2025-10-09T00:00"), Interval.D1, now, 0) == at("2025-10-07T14:30:30")


def test_opens_within_spans_are_chosen_half_open() -> None:
    start = at("2025-10-08T14:00")
    chosen = within(
        minutes(start, 10),
        [
            Span(at("2025-10-08T14:02"), at("2025-10-08T14:04")),
            Span(at("2025-10-08T14:09"), at("2025-10-08T15:00")),
        ],
    )
    assert list((chosen - to_instant(start)).astype("timedelta64[m]").astype(int)) == [2, 3, 9]
