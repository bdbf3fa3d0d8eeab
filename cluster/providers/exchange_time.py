"""From the times that providers write to the opens of bars: wall clocks, session dates, sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from cluster.clock import SystemClock
from cluster.errors import Malformed
from cluster.market import calendars
from cluster.market.instants import Instants, to_instant, to_moment
from cluster.market.intervals import Interval

Dates = npt.NDArray[np.datetime64]
"""Array of `datetime64[D]`."""

NEW_YORK = ZoneInfo("America/New_York")

SETTLE = timedelta(seconds=60)
"""So long after its close a bar may still change."""

_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Placed:
    """Which rows of an answer are bars of a session, and which bars they are."""

    rows: npt.NDArray[np.intp]
    """Rows to keep, ascending by `opens`, one for each open; of several the last one wins."""
    opens: Instants
    closes: Instants
    """First moment after the bar; the session's close for the bar that it cuts, and for daily bars."""

    def finals(self, now: datetime) -> npt.NDArray[np.bool_]:
        """Which of the bars have closed, and settled, by `now`."""
        final: npt.NDArray[np.bool_] = self.closes + np.timedelta64(SETTLE) <= to_instant(now)
        return final


def utc(wall_clock: Instants, zone: ZoneInfo) -> Instants:
    """Times of a wall clock in `zone` as UTC, with the offset that holds at noon of their date.

    Clocks change at night, so this is right in all trading hours.
    """
    return wall_clock - _offsets(wall_clock.astype("datetime64[D]"), zone)


def midnights(dates: Dates, zone: ZoneInfo) -> Instants:
    """Midnight at the beginning of each date in `zone`, as UTC."""
    found = [
        to_instant(datetime.fromisoformat(str(day)).replace(tzinfo=zone))
        for day in dates.astype("datetime64[D]")
    ]
    return np.array(found, dtype="datetime64[us]")


def first_open(calendar: str, interval: Interval, start: datetime, end: datetime) -> datetime | None:
    """The first moment of [start, end) at which a bar should open, or `None`."""
    while start < end:
        until = min(end, start + 14 * _ONE_DAY)  # found at once, for no exchange is closed for longer
        opens = calendars.expected_opens(calendar, interval, start, until)
        if len(opens):
            return to_moment(opens[0])
        start = until
    return None


def session_date(moment: datetime, zone: ZoneInfo) -> np.datetime64:
    """The date in `zone` at `moment`."""
    return np.datetime64(moment.astimezone(zone).date(), "D")


def place_daily(dates: Dates, calendar: str, source: str) -> Placed:
    """Daily rows by session date; a date without a session of `calendar` is no bar.

    Raises `Malformed` for dates that no provider can have.
    """
    known = sessions_around(dates.astype("datetime64[us]"), calendar, source)
    index = np.searchsorted(known.dates, dates)
    in_range = np.minimum(index, max(len(known) - 1, 0))
    kept = known.dates[in_range] == dates if len(known) else np.zeros(len(dates), dtype=bool)
    rows = _last_of_each(dates, np.flatnonzero(kept))
    return Placed(rows, known.opens[in_range[rows]], known.closes[in_range[rows]])


def place_intraday(opens: Instants, interval: Interval, calendar: str, source: str) -> Placed:
    """Intraday rows by open in UTC; what opens before, after or between the sessions of `calendar` is no bar.

    Raises `Malformed` for times that no provider can have, as in a wrong unit.
    """
    known = sessions_around(opens, calendar, source)
    if not len(known):
        nothing = np.array([], dtype="datetime64[us]")
        return Placed(np.array([], dtype=np.intp), nothing, nothing)
    index = np.searchsorted(known.opens, opens, side="right") - 1
    kept = (index >= 0) & (opens < known.closes[index])
    rows = _last_of_each(opens, np.flatnonzero(kept))
    ends = opens[rows] + np.timedelta64(interval.seconds, "s")
    return Placed(rows, opens[rows], np.minimum(ends, known.closes[index[rows]]))


def sessions_around(instants: Instants, calendar: str, source: str) -> calendars.Sessions:
    """The sessions of the days that `instants` touch; `Malformed` for times that no provider can have."""
    if not len(instants):
        return calendars.sessions(calendar, _EARLIEST, _EARLIEST)
    first, last = instants.min(), instants.max()  # NaT if there is one
    latest = SystemClock().now() + 7 * _ONE_DAY
    if not to_instant(_EARLIEST) <= first <= last <= to_instant(latest):
        raise Malformed(f"{source} answered times from {first} to {last}; is their unit another one?")
    return calendars.sessions(calendar, to_moment(first) - _ONE_DAY, to_moment(last) + _ONE_DAY)


def _last_of_each(keys: Instants | Dates, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Of `rows` the last one of each key, ascending by key."""
    _, first_from_behind = np.unique(keys[rows][::-1], return_index=True)
    chosen: npt.NDArray[np.intp] = rows[::-1][first_from_behind]
    return chosen


def _offsets(dates: Dates, zone: ZoneInfo) -> npt.NDArray[np.timedelta64]:
    """Wall clock minus UTC at noon of each date."""
    days, index = np.unique(dates, return_inverse=True)
    noons = [datetime.fromisoformat(str(day)).replace(hour=12, tzinfo=zone) for day in days]
    offsets = np.array([noon.utcoffset() for noon in noons], dtype="timedelta64[us]")
    found: npt.NDArray[np.timedelta64] = offsets[index]
    return found
