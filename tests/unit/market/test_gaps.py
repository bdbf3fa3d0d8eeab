"""Gaps are what the calendar expects and the store lacks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.market import calendars, gaps
from cluster.market.gaps import Gap
from cluster.market.instants import Instants, to_instant
from cluster.market.intervals import Interval


def expected(interval: Interval, start: str, end: str, calendar: str = "XNYS") -> Instants:
    moments = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end)]
    return calendars.expected_opens(calendar, interval, *moments)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_full_store_has_no_gaps() -> None:
    opens = expected(Interval.D1, "2024-01-01", "2024-02-01")
    assert gaps.find(opens, opens, Interval.D1) == []


def test_an_empty_store_is_one_gap() -> None:
    opens = expected(Interval.D1, "2024-01-01", "2024-01-06")
    assert gaps.find(opens, opens[:0], Interval.D1) == [
        Gap(utc("2024-01-02T14:30"), utc("2024-01-06T14:30"), missing=4)
    ]


def test_a_missing_friday_and_monday_are_one_gap_because_the_weekend_is_closed() -> None:
    opens = expected(Interval.D1, "2024-01-02", "2024-01-12")
    stored = np.delete(opens, [3, 4])  # Friday 5th, Monday 8th
    assert gaps.find(opens, stored, Interval.D1) == [
        Gap(utc("2024-01-05T14:30"), utc("2024-01-09T14:30"), missing=2)
    ]


def test_the_deletion_of_an_inclusive_range_of_ten_minutes_is_a_gap_of_eleven_bars() -> None:
    opens = expected(Interval.M1, "2025-10-08", "2025-10-09")
    deleted = (opens >= to_instant(utc("2025-10-08T14:00"))) & (opens <= to_instant(utc("2025-10-08T14:10")))
    assert gaps.find(opens, opens[~deleted], Interval.M1) == [
        Gap(utc("2025-10-08T14:00"), utc("2025-10-08T14:11"), missing=11)
    ]


def test_the_last_minute_of_a_half_day_is_missed() -> None:
    opens = expected(Interval.M1, "2025-11-28", "2025-11-29")
    assert gaps.find(opens, opens[:-1], Interval.M1) == [
        Gap(utc("2025-11-28T17:59"), utc("2025-11-28T18:00"), missing=1)
    ]


def test_the_first_minute_after_a_change_of_clocks_is_missed() -> None:
    opens = expected(Interval.M1, "2025-03-10", "2025-03-11")
    assert gaps.find(opens, opens[1:], Interval.M1) == [
        Gap(utc("2025-03-10T13:30"), utc("2025-03-10T13:31"), missing=1)
    ]


def test_a_bar_off_the_grid_neither_fills_a_gap_nor_makes_one() -> None:
    opens = expected(Interval.M1, "2025-03-10", "2025-03-11", "24/7")
    odd = opens[5] + np.timedelta64(17, "s")
    assert gaps.find(opens, np.append(opens, odd), Interval.M1) == []
    assert len(gaps.find(opens, np.append(np.delete(opens, 5), odd), Interval.M1)) == 1


@settings(deadline=None, max_examples=50)  # the first example loads the calendar
@given(
    interval=st.sampled_from(list(Interval)),
    calendar=st.sampled_from(["XNYS", "24/7", "XTKS"]),
    day=st.integers(0, 400),
    kept=st.lists(st.booleans(), min_size=1, max_size=60),
)
def test_gaps_and_stored_bars_together_are_the_expected_bars_without_overlap(
    interval: Interval, calendar: str, day: int, kept: list[bool]
) -> None:
    start = utc("2024-01-01") + timedelta(days=day)
    opens = calendars.expected_opens(
        calendar, interval, start, start + timedelta(days=40 if interval.is_daily else 2)
    )
    mask = np.resize(np.array(kept), len(opens))
    found = gaps.find(opens, opens[mask], interval)
    covered = np.zeros(len(opens), dtype=int)
    for gap in found:
        inside = (opens >= to_instant(gap.start)) & (opens < to_instant(gap.end))
        assert inside.sum() == gap.missing
        covered += inside
    assert np.array_equal(covered, (~mask).astype(int))
    assert all(before.end <= after.start for before, after in pairwise(found))
