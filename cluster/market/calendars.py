"""Exchange calendars: sessions with their real opens and closes, and the bars that should exist.

Source of sessions: exchange_calendars, asked with explicit bounds because its own are fixed at import time.
Closures and early closes that exchanges announce too late for it are `Override`s and win over the library.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.clock import SystemClock
from cluster.errors import ConfigError, InputError
from cluster.market.instants import Instants, to_instant, to_moment
from cluster.market.intervals import Interval

ALWAYS_OPEN = "24/7"
_FIRST_YEAR = 1970


@dataclass(frozen=True, slots=True)
class Override:
    """A correction of one session: open between two times, or closed when both are `None`."""

    calendar: str
    session: date
    open: datetime | None
    close: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class Sessions:
    """Trading sessions in ascending order, arrays of equal length N."""

    dates: npt.NDArray[np.datetime64]
    """`datetime64[D]`, the exchange's local session date."""
    opens: Instants
    closes: Instants
    """First moment after the session; earlier than usual on a half day."""
    break_starts: Instants
    break_ends: Instants
    """Lunch break, NaT where there is none."""

    def __len__(self) -> int:
        return len(self.dates)

    def where(self, chosen: slice | npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Sessions:
        """The chosen sessions."""
        columns = (self.dates, self.opens, self.closes, self.break_starts, self.break_ends)
        return Sessions(*(column[chosen] for column in columns))


_overrides: Mapping[str, tuple[Override, ...]] = {}


def install_overrides(overrides: Iterable[Override]) -> None:
    """Let `overrides` win over the library in this process; replaces those installed before."""
    global _overrides  # noqa: PLW0603 - one table a process, read by the calendars below
    changed: dict[str, tuple[Override, ...]] = {}
    for each in sorted(overrides, key=lambda one: (one.calendar, one.session)):
        changed[each.calendar] = (*changed.get(each.calendar, ()), each)
    _overrides = changed


def read_overrides(path: Path) -> list[Override]:
    """Read a CSV file with the header `calendar,session,open,close,reason`; empty times mean closed all day.

    Raises `ConfigError` that names the file and line when a row cannot be read or makes no sense.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            found = [_override(path, rows.line_num, row) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is no CSV in UTF-8: {error}") from error
    sessions = Counter((each.calendar, each.session) for each in found)
    if not found or (twice := [key for key, count in sessions.items() if count > 1]):
        what = f"{twice[0][0]} {twice[0][1]} stands there twice" if found else "there is no session in it"
        raise ConfigError(f"{path}: {what}; expected calendar,session,open,close,reason, a session once")
    return found


def is_known(calendar: str) -> bool:
    """Whether there is such a calendar."""
    return calendar == ALWAYS_OPEN or calendar in names()


def names() -> frozenset[str]:
    """The calendars there are."""
    import exchange_calendars as xc  # takes a second, as below

    return frozenset(xc.get_calendar_names())


def sessions(calendar: str, start: datetime, end: datetime) -> Sessions:
    """The sessions of `calendar` whose open lies in [start, end).

    Raises `InputError` for an unknown calendar and for a range outside of what the calendar covers.
    """
    known = _covering(calendar, start, end)
    first, last = np.searchsorted(known.opens, [to_instant(start), to_instant(end)])
    return known.where(slice(int(first), int(last)))


def first_year(calendar: str) -> int:
    """The first year that `calendar` covers; `InputError` for an unknown calendar."""
    now = SystemClock().now()
    return int(_covering(calendar, now, now).dates[0].item().year)


def session_of(calendar: str, moment: datetime) -> tuple[datetime, datetime]:
    """Open and close of the session that `moment` lies in; outside of sessions twice `moment`."""
    known = sessions(calendar, moment - timedelta(days=1), moment + timedelta(microseconds=1))
    if not len(known.opens) or (ends := to_moment(known.closes[-1])) <= moment:
        return moment, moment
    return to_moment(known.opens[-1]), ends


def expected_opens(calendar: str, interval: Interval, start: datetime, end: datetime) -> Instants:
    """The opens of all bars that should exist with `start <= open < end`, ascending, `datetime64[us]` in UTC.

    A daily bar opens with its session. Intraday bars start at the session's open (and again after a lunch
    break), so hourly bars of New York are at :30; the last one is shorter where the session is no multiple of
    the interval. No bar opens at or after a close, half days included. Errors as in `sessions`.
    """
    known = _covering(calendar, start, end)
    lower, upper = to_instant(start), to_instant(end)
    if not interval.is_daily:
        first, last = np.searchsorted(known.closes, lower, "right"), np.searchsorted(known.opens, upper)
        known = known.where(slice(int(first), int(last)))
    opens = (
        known.opens if interval.is_daily else _intraday_opens(known, np.timedelta64(interval.seconds, "s"))
    )
    lowest, highest = np.searchsorted(opens, [lower, upper])
    return opens[lowest:highest].copy()


def first_closes(calendar: str, interval: Interval, since: Instants) -> Instants:
    """When the first bar that opens at each moment of `since` or later closes, `datetime64[us]` in UTC.

    Errors as in `sessions`.
    """
    if not len(since):
        return since
    newest = to_moment(since.max())
    known = _covering(calendar, newest, newest)
    first, last = (
        np.searchsorted(known.closes, since.min(), "right"),
        np.searchsorted(known.opens, since.max()),
    )
    known = known.where(slice(int(first), int(last) + 1))  # with the session after the newest moment
    if interval.is_daily:
        closes: Instants = known.closes[np.searchsorted(known.opens, since)]
        return closes
    starts, ends = _segments(known)
    step, none = np.timedelta64(interval.seconds, "s"), np.timedelta64(0, "us")
    at = np.searchsorted(ends, since, "right")
    opens = starts[at] - (np.minimum(starts[at] - since, none) // step) * step
    at += opens >= ends[at]  # nothing more opens there
    return np.minimum(np.maximum(opens, starts[at]) + step, ends[at])


def _intraday_opens(known: Sessions, step: np.timedelta64) -> Instants:
    starts, ends = _segments(known)
    counts = -((starts - ends) // step)  # rounded up: the last bar may be cut by the close
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    opens: Instants = np.repeat(starts, counts) + offsets * step
    return opens


def _segments(known: Sessions) -> tuple[Instants, Instants]:
    """Starts and ends of continuous trading: a session, or its two halves around a lunch break."""
    has_break = ~np.isnat(known.break_starts)
    first_ends = np.where(has_break, known.break_starts, known.closes)
    starts = np.concatenate([known.opens, known.break_ends[has_break]])
    ends = np.concatenate([first_ends, known.closes[has_break]])
    order = np.argsort(starts)
    return starts[order], ends[order]


def _covering(calendar: str, start: datetime, end: datetime) -> Sessions:
    last_year = SystemClock().now().year + 1  # later holidays are not announced yet
    if end < start:
        raise InputError(f"the range ends at {end.isoformat()}, before its start {start.isoformat()}")
    known = _sessions(calendar, last_year, _overrides.get(calendar, ()))
    first, after = known.dates[0].item(), date(last_year + 1, 1, 1)
    if start.date() < date(first.year, 1, 1) or end.date() > after:
        raise InputError(
            f"calendar {calendar} covers {first.year}-01-01 to {last_year}-12-31; "
            f"asked for {start.isoformat()} to {end.isoformat()}"
        )
    return known


@lru_cache(maxsize=32)
def _schedule(calendar: str, last_year: int) -> Sessions:
    import exchange_calendars as xc  # takes a second, which commands without a calendar need not pay

    try:
        earliest, latest = xc.get_calendar(calendar).bound_min(), xc.get_calendar(calendar).bound_max()
    except xc.errors.InvalidCalendarName:
        names = ", ".join(["XNYS", "XNAS", "XLON", "XTKS", ALWAYS_OPEN])
        raise InputError(f"calendar {calendar!r} is not known; give a name like {names}") from None
    start, end = np.datetime64(f"{_FIRST_YEAR}-01-01"), np.datetime64(f"{last_year}-12-31")
    table = xc.get_calendar(
        calendar,
        start=str(start if earliest is None else max(start, np.datetime64(earliest, "D"))),
        end=str(end if latest is None else min(end, np.datetime64(latest, "D"))),
    ).schedule
    columns = (
        table[name].to_numpy(dtype="datetime64[us]") for name in ("open", "close", "break_start", "break_end")
    )
    opens, closes, break_starts, break_ends = columns
    return Sessions(table.index.to_numpy(dtype="datetime64[D]"), opens, closes, break_starts, break_ends)


@lru_cache(maxsize=32)
def _sessions(calendar: str, last_year: int, changes: tuple[Override, ...]) -> Sessions:
    # The changes are part of the key: what one thread works out with the old ones is not taken for the new.
    known = _schedule(calendar, last_year)
    return _overridden(known, changes) if changes else known


def _overridden(known: Sessions, changes: tuple[Override, ...]) -> Sessions:
    changed = np.array([np.datetime64(change.session) for change in changes], dtype="datetime64[D]")
    kept = known.where(~np.isin(known.dates, changed))
    added = [change for change in changes if change.open is not None and change.close is not None]
    nat = np.full(len(added), np.datetime64("NaT"), dtype="datetime64[us]")
    merged = Sessions(
        np.append(kept.dates, np.array([np.datetime64(c.session) for c in added], dtype="datetime64[D]")),
        np.append(
            kept.opens, np.array([to_instant(c.open) for c in added if c.open], dtype="datetime64[us]")
        ),
        np.append(
            kept.closes, np.array([to_instant(c.close) for c in added if c.close], dtype="datetime64[us]")
        ),
        np.append(kept.break_starts, nat),
        np.append(kept.break_ends, nat),
    )
    return merged.where(np.argsort(merged.opens))


def _is_of(session: date, opens: datetime, closes: datetime) -> bool:
    """Whether these can be the hours of `session`, whose date is that of the exchange."""
    near = abs(opens.astimezone(UTC).date() - session) <= timedelta(days=1)
    return near and opens < closes <= opens + timedelta(days=1)


def _override(path: Path, number: int, row: Mapping[str | Any, Any]) -> Override:
    try:
        times = [datetime.fromisoformat(row[name]) if row[name] else None for name in ("open", "close")]
        if (times[0] is None) != (times[1] is None) or any(time and time.tzinfo is None for time in times):
            raise ValueError("open and close must both be given with a time zone, or both be empty")
        session, reason = date.fromisoformat(row["session"]), row["reason"]
        if times[0] and times[1] and not _is_of(session, times[0], times[1]):
            raise ValueError("open must be before close, both of this session, at most a day apart")
        if not (reason or "").isprintable() or None in row:
            raise ValueError("reason holds a comma outside of quotes, or something that cannot be printed")
        return Override(row["calendar"], session, times[0], times[1], reason)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} line {number}: {error}; expected calendar,session,open,close,reason"
        ) from error
