"""Sessions and expected bars, against days that a person can look up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import ConfigError, InputError
from cluster.market import calendars
from cluster.market.calendars import Override, session_of
from cluster.market.intervals import Interval


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def labels(calendar: str, interval: Interval, start: str, end: str) -> list[str]:
    opens = calendars.expected_opens(calendar, interval, utc(start), utc(end))
    return [str(open_)[:16] for open_ in opens]


@pytest.fixture
def no_overrides() -> Iterator[None]:
    yield
    calendars.install_overrides([])


@pytest.mark.parametrize(
    ("year", "count", "minutes"), [(2024, 252, 97_740), (2025, 250, 96_960), (2026, 251, 97_530)]
)
def test_a_year_of_new_york_has_its_sessions_and_minutes(year: int, count: int, minutes: int) -> None:
    start, end = utc(f"{year}-01-01"), utc(f"{year + 1}-01-01")
    assert len(calendars.sessions("XNYS", start, end)) == count
    assert len(calendars.expected_opens("XNYS", Interval.M1, start, end)) == minutes


@pytest.mark.parametrize(
    ("day", "minutes"),
    [
        ("2023-07-03", 210),
        ("2023-11-24", 210),  # the day after Thanksgiving
        ("2024-07-03", 210),
        ("2024-11-29", 210),
        ("2024-12-24", 210),
        ("2025-07-03", 210),
        ("2025-11-28", 210),
        ("2025-12-24", 210),
        ("2026-11-27", 210),
        ("2026-12-24", 210),
        ("2026-07-02", 390),  # the 3rd is the holiday, so this is a full day
        ("2025-01-09", 0),  # day of mourning
        ("2018-12-05", 0),  # day of mourning
        ("2012-10-29", 0),  # hurricane
        ("2012-10-30", 0),
        ("2025-01-11", 0),  # Saturday
        ("2025-01-10", 390),
    ],
)
def test_special_days_have_the_minutes_of_their_real_session(day: str, minutes: int) -> None:
    assert len(labels("XNYS", Interval.M1, f"{day}T00:00", f"{day}T23:59")) == minutes


@pytest.mark.parametrize(
    ("calendar", "day", "opens"),
    [
        ("XNYS", "2025-03-07", "2025-03-07T14:30"),
        ("XNYS", "2025-03-10", "2025-03-10T13:30"),  # New York changed its clocks on the 9th
        ("XLON", "2025-03-10", "2025-03-10T08:00"),
        ("XLON", "2025-03-31", "2025-03-31T07:00"),  # London three weeks later
        ("XLON", "2025-10-24", "2025-10-24T07:00"),
        ("XLON", "2025-10-27", "2025-10-27T08:00"),
        ("XNYS", "2025-10-31", "2025-10-31T13:30"),
        ("XNYS", "2025-11-03", "2025-11-03T14:30"),
        ("XASX", "2025-01-06", "2025-01-06T23:00"),  # in summer on the day before, in UTC
        ("XASX", "2025-07-08", "2025-07-08T00:00"),
        ("XNYS", "1990-01-02", "1990-01-02T14:30"),  # long before what the library covers by itself
    ],
)
def test_a_daily_bar_opens_with_its_session_on_both_sides_of_a_clock_change(
    calendar: str, day: str, opens: str
) -> None:
    assert labels(calendar, Interval.D1, f"{day}T00:00", f"{day}T23:59") == [opens]


def test_hourly_bars_start_at_the_open_and_stop_at_the_early_close() -> None:
    half_day = labels("XNYS", Interval.H1, "2025-11-28", "2025-11-29")
    assert half_day == ["2025-11-28T14:30", "2025-11-28T15:30", "2025-11-28T16:30", "2025-11-28T17:30"]


def test_no_bar_opens_in_the_lunch_break_of_tokyo() -> None:
    assert labels("XTKS", Interval.H1, "2025-12-01T00:00", "2025-12-01T05:00") == [
        "2025-12-01T00:00",
        "2025-12-01T01:00",
        "2025-12-01T02:00",  # half an hour, to the break at 02:30
        "2025-12-01T03:30",
        "2025-12-01T04:30",
    ]


@pytest.mark.parametrize("calendar", ["XTKS", "XHKG"])
def test_a_day_with_a_lunch_break_has_330_minutes(calendar: str) -> None:
    assert len(labels(calendar, Interval.M1, "2025-12-01T00:00", "2025-12-01T12:00")) == 330


def test_a_market_that_never_closes_expects_every_minute() -> None:
    assert len(labels("24/7", Interval.M1, "2024-02-29", "2024-03-01")) == 1_440
    assert labels("24/7", Interval.D1, "2024-02-28", "2024-03-02") == [
        "2024-02-28T00:00",
        "2024-02-29T00:00",
        "2024-03-01T00:00",
    ]


def test_the_range_is_half_open() -> None:
    assert labels("XNYS", Interval.D1, "2025-03-07T14:30", "2025-03-10T13:30") == ["2025-03-07T14:30"]
    assert labels("XNYS", Interval.M30, "2025-03-07T14:31", "2025-03-07T15:30") == ["2025-03-07T15:00"]
    assert labels("XNYS", Interval.M1, "2025-03-07T14:30", "2025-03-07T14:30") == []


@settings(deadline=None, max_examples=50)  # the first example loads the calendar
@given(
    interval=st.sampled_from(list(Interval)),
    cuts=st.lists(st.integers(0, 60 * 24 * 20), min_size=3, max_size=3).map(sorted),
)
def test_two_neighbouring_ranges_expect_what_the_whole_range_expects(
    interval: Interval, cuts: list[int]
) -> None:
    first, middle, last = (
        datetime.fromtimestamp(1_732_000_000 // 60 * 60 + minute * 60, UTC) for minute in cuts
    )
    parts = [calendars.expected_opens("XNYS", interval, *span) for span in ((first, middle), (middle, last))]
    whole = calendars.expected_opens("XNYS", interval, first, last)
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.all(np.diff(whole) > np.timedelta64(0, "us"))


@pytest.mark.parametrize(("start", "end"), [("1969-12-31", "1970-02-01"), ("2020-01-01", "2300-01-01")])
def test_a_range_outside_the_calendar_is_refused_with_its_bounds(start: str, end: str) -> None:
    with pytest.raises(InputError, match=r"calendar XNYS covers 1970-01-01 to \d{4}-12-31; asked for"):
        calendars.sessions("XNYS", utc(start), utc(end))


def test_an_unknown_calendar_is_refused() -> None:
    with pytest.raises(InputError, match="calendar 'NYSE2' is not known"):
        calendars.sessions("NYSE2", utc("2024-01-01"), utc("2024-02-01"))


def test_a_range_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(InputError, match="before its start"):
        calendars.sessions("XNYS", utc("2024-02-01"), utc("2024-01-01"))


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InputError, match="has no time zone"):
        calendars.sessions("XNYS", datetime(2024, 1, 1), datetime(2024, 2, 1))  # noqa: DTZ001


@pytest.mark.usefixtures("no_overrides")
def test_an_announced_closure_and_an_early_close_win_over_the_library() -> None:
    calendars.install_overrides(
        [
            Override("XNYS", date(2025, 5, 6), None, None, "storm"),
            Override("XNYS", date(2025, 5, 7), utc("2025-05-07T13:30"), utc("2025-05-07T14:30"), "outage"),
        ]
    )
    assert labels("XNYS", Interval.D1, "2025-05-05", "2025-05-08") == ["2025-05-05T13:30", "2025-05-07T13:30"]
    assert labels("XNYS", Interval.M30, "2025-05-06", "2025-05-08") == [
        "2025-05-07T13:30",
        "2025-05-07T14:00",
    ]
    calendars.install_overrides([])
    assert len(labels("XNYS", Interval.D1, "2025-05-05", "2025-05-08")) == 3


def test_overrides_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "overrides.csv"
    file.write_text(
        "calendar,session,open,close,reason\n"
        "XNYS,2025-05-06,,,storm\n"
        "XNYS,2025-05-07,2025-05-07T13:30Z,2025-05-07T17:00Z,outage\n"
    )
    assert calendars.read_overrides(file) == [
        Override("XNYS", date(2025, 5, 6), None, None, "storm"),
        Override("XNYS", date(2025, 5, 7), utc("2025-05-07T13:30"), utc("2025-05-07T17:00"), "outage"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "XNYS,6 May,,,storm",
        "XNYS,2025-05-06,2025-05-06T13:30Z,,half",
        "XNYS,2025-05-06,09:30,13:00,x",
        "XNYS",
        "XNYS,2025-05-06,2025-05-06T17:00Z,2025-05-06T13:30Z,the wrong way round",
        "XNYS,2025-05-06,2024-05-06T13:30Z,2024-05-06T17:00Z,of another year",
        "XNYS,2025-05-06,2025-05-06T13:30Z,2025-05-09T17:00Z,for days",
        "XNYS,2025-05-06,,,one, and another",
        "XNYS,2025-05-06,,,\x00",
    ],
)
def test_a_wrong_line_of_overrides_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "overrides.csv"
    file.write_text(f"calendar,session,open,close,reason\n{line}\n")
    with pytest.raises(ConfigError, match=r"overrides\.csv line 2"):
        calendars.read_overrides(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "no CSV in UTF-8"),
        (b"", "no session in it"),
        (
            b"calendar,session,open,close,reason\n" + 2 * b"XNYS,2025-05-06,,,storm\n",
            "XNYS 2025-05-06 stands",
        ),
    ],
)
def test_a_file_that_holds_no_overrides_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "overrides.csv"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        calendars.read_overrides(file)


def test_overrides_may_come_from_a_spreadsheet(tmp_path: Path) -> None:
    file = tmp_path / "overrides.csv"
    file.write_text("\ufeffcalendar,session,open,close,reason\r\nXNYS,2025-05-06,,,storm\r\n", newline="")
    assert calendars.read_overrides(file) == [Override("XNYS", date(2025, 5, 6), None, None, "storm")]


def test_a_session_is_that_of_the_exchange() -> None:
    def at(hour: int, minute: int = 0) -> datetime:
        return datetime(2025, 10, 8, hour, minute, tzinfo=UTC)

    day = timedelta(days=1)
    assert session_of("XNYS", at(14)) == (at(13, 30), at(20))
    assert session_of("XNYS", at(20)) == (at(20), at(20))  # closed
    assert session_of("XASX", at(1)) == (at(23) - day, at(5))  # Sydney opened the day before by UTC
    assert session_of("24/7", at(14)) == (at(0), at(0) + day)


@pytest.mark.parametrize(
    ("calendar", "interval", "since", "close"),
    [
        ("XNYS", Interval.M1, "2025-11-28T14:30", "2025-11-28T14:31"),
        ("XNYS", Interval.M1, "2025-11-28T14:30:00.000001", "2025-11-28T14:32"),
        ("XNYS", Interval.M1, "2025-11-28T18:00", "2025-12-01T14:31"),  # a half day, then a weekend
        ("XNYS", Interval.H1, "2025-11-28T17:00", "2025-11-28T18:00"),  # cut by the close
        ("XNYS", Interval.H1, "2025-11-27T15:00", "2025-11-28T15:30"),  # Thanksgiving
        ("XNYS", Interval.D1, "2025-11-28T14:30:00.000001", "2025-12-01T21:00"),
        ("XHKG", Interval.M1, "2025-10-08T04:00", "2025-10-08T05:01"),  # lunch
        ("24/7", Interval.M1, "2025-10-08T23:59:30", "2025-10-09T00:01"),
    ],
)
def test_the_first_bar_from_a_moment_on_closes_when_its_exchange_has_traded(
    calendar: str, interval: Interval, since: str, close: str
) -> None:
    moments = np.array([since, "2025-01-02T12:00"], "datetime64[us]")
    assert calendars.first_closes(calendar, interval, moments)[0] == np.datetime64(close)
