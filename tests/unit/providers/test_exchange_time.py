"""From the times that providers write to the opens of bars."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Malformed
from cluster.market.instants import Instants, to_moment
from cluster.market.intervals import Interval
from cluster.providers import exchange_time
from cluster.providers.exchange_time import NEW_YORK


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def instants(*texts: str) -> Instants:
    return np.array(texts, dtype="datetime64[us]")


@given(
    st.dates(min_value=datetime(1990, 1, 1).date(), max_value=datetime(2037, 12, 31).date()),  # noqa: DTZ001
    st.integers(min_value=4 * 60, max_value=20 * 60),
)
def test_every_minute_of_the_extended_hours_of_new_york_is_the_one_that_its_clock_shows(
    day: datetime, minute: int
) -> None:
    wall_clock = np.datetime64(day) + np.timedelta64(minute, "m")
    moment = to_moment(exchange_time.utc(np.array([wall_clock], dtype="datetime64[us]"), NEW_YORK)[0])
    shown = moment.astimezone(NEW_YORK)
    assert (shown.date(), shown.hour * 60 + shown.minute) == (day, minute)


def test_midnight_of_new_york_is_at_four_in_summer_and_at_five_in_winter() -> None:
    dates = np.array(["2024-06-03", "2024-01-16", "2024-11-03", "2024-11-04"], dtype="datetime64[D]")
    expected = instants("2024-06-03T04:00", "2024-01-16T05:00", "2024-11-03T04:00", "2024-11-04T05:00")
    assert exchange_time.midnights(dates, NEW_YORK).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("interval", "start", "end", "expected"),
    [
        (Interval.D1, "2024-06-01 00:00", "2024-06-04 00:00", "2024-06-03 13:30"),  # over a weekend
        (Interval.M1, "2024-06-03 15:00:01", "2024-06-04 00:00", "2024-06-03 15:01"),  # within a session
        (Interval.M30, "2024-06-03 19:31", "2024-06-05 00:00", "2024-06-04 13:30"),  # after the last open
        (Interval.M1, "2023-07-03 17:00", "2023-07-05 00:00", None),  # from an early close over a holiday
        (Interval.M1, "2024-06-03 13:30", "2024-06-03 13:30", None),  # an empty range
        (Interval.M1, "2001-09-10 20:00", "2001-09-18 00:00", "2001-09-17 13:30"),  # the longest closure
    ],
)
def test_the_first_open_of_a_range_is_that_of_the_calendar(
    interval: Interval, start: str, end: str, expected: str | None
) -> None:
    found = exchange_time.first_open("XNYS", interval, utc(start), utc(end))
    assert found == (utc(expected) if expected else None)


def test_a_bar_ends_with_its_session() -> None:
    placed = exchange_time.place_intraday(instants("2023-07-03T16:30"), Interval.H1, "XNYS", "someone")
    assert placed.closes.tolist() == instants("2023-07-03T17:00").tolist()


def test_of_several_rows_for_one_open_the_last_one_is_kept() -> None:
    opens = instants("2024-06-03T13:31", "2024-06-03T13:30", "2024-06-03T13:31", "2024-06-03T20:00")
    placed = exchange_time.place_intraday(opens, Interval.M1, "XNYS", "someone")
    assert placed.rows.tolist() == [1, 2]


def test_no_rows_are_no_bars() -> None:
    assert len(exchange_time.place_intraday(instants(), Interval.M1, "XNYS", "someone").rows) == 0
    assert len(exchange_time.place_daily(np.array([], "datetime64[D]"), "XNYS", "someone").rows) == 0


def test_rows_of_a_holiday_only_are_no_bars() -> None:
    christmas = instants("2023-12-25T15:00")
    assert len(exchange_time.place_intraday(christmas, Interval.M1, "XNYS", "someone").rows) == 0
    assert len(exchange_time.place_daily(christmas.astype("datetime64[D]"), "XNYS", "someone").rows) == 0


@pytest.mark.parametrize("text", ["1989-12-31T14:30", "2200-01-01T14:30", "NaT"])
def test_times_that_nobody_can_have_are_malformed_and_name_who_said_so(text: str) -> None:
    for opens in (instants(text), instants("2024-06-03T13:30", text)):
        with pytest.raises(Malformed, match="someone answered times"):
            exchange_time.place_intraday(opens, Interval.M1, "XNYS", "someone")


def test_a_bar_is_final_a_minute_after_its_close() -> None:
    placed = exchange_time.place_intraday(instants("2024-06-03T13:30"), Interval.M1, "XNYS", "someone")
    settled = utc("2024-06-03 13:32")
    assert placed.finals(settled).tolist() == [True]
    assert placed.finals(settled - timedelta(microseconds=1)).tolist() == [False]
