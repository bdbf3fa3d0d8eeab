"""The last bars that a calendar expects, and what of them is stored. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.market import bars, calendars
from cluster.market.bars import Flags
from cluster.market.instants import Instants, to_instant
from cluster.market.intervals import Interval

LOOK_BACK = 10
"""Bars that are looked after here; an older hole is the gap finder's."""

MISSING, RUNNING, FINAL = 0, 1, 2
"""What is stored of a bar: nothing, values that may change, or its last values."""

States = npt.NDArray[np.int8]
"""Of shape (symbols, slots)."""

_REACH = timedelta(days=7)
_DAILY_REACH = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Slots:
    """The newest expected bars of one calendar and interval, oldest first; the last one may still run."""

    interval: Interval
    opens: Instants
    closes: Instants

    def __len__(self) -> int:
        return len(self.opens)

    def due(self, now: datetime, grace_s: float) -> Flags:
        """Which of them are final, because they closed `grace_s` before `now` or earlier."""
        settled: Flags = self.closes + _seconds(grace_s) <= to_instant(now)
        return settled

    def finality(self, ts: Instants, now: datetime, grace_s: float) -> Flags:
        """Which of the bars that open at `ts` may be called final."""
        return self.closes_of(ts) + _seconds(grace_s) <= to_instant(now)

    def closes_of(self, ts: Instants) -> Instants:
        """When the bars that open at `ts` close; one that no slot expects lasts its whole interval."""
        place, known = self.places(ts)
        longest = ts + np.timedelta64(self.interval.seconds, "s")
        if not len(self):
            return longest
        closes: Instants = np.where(known, self.closes[place], longest)
        return closes

    def places(self, ts: Instants) -> tuple[npt.NDArray[np.intp], Flags]:
        """The slot of each bar that opens at `ts`, and whether there is one at all."""
        if not len(self):
            return np.zeros(len(ts), np.intp), np.zeros(len(ts), bool)
        place = np.minimum(np.searchsorted(self.opens, ts), len(self) - 1)
        return place, self.opens[place] == ts


def newest(calendar: str, interval: Interval, now: datetime) -> Slots:
    """The last bars that have opened by `now`; none when the market has been closed for a week.

    Daily bars: for a month. Errors as in `calendars.expected_opens`.
    """
    start = now - (_DAILY_REACH if interval.is_daily else _REACH)
    opens = calendars.expected_opens(calendar, interval, start, now + timedelta(microseconds=1))[-LOOK_BACK:]
    return Slots(interval, opens, calendars.first_closes(calendar, interval, opens))


def states(slots: Slots, symbols: int, symbol: npt.NDArray[np.integer], ts: Instants, final: Flags) -> States:
    """What is stored: the bar of `symbol` (its place) that opens at `ts`, and whether it is final."""
    found: States = np.full((symbols, len(slots)), MISSING, dtype=np.int8)
    place, known = slots.places(ts)
    found[symbol[known], place[known]] = np.where(final[known], FINAL, RUNNING)
    return found


def settled(table: pa.Table, slots: Slots, asked_at: datetime, grace_s: float) -> pa.Table:
    """`table` without final bars that were not over `grace_s` before they were asked for.

    What a provider says earlier may still change, whatever it calls it: such a bar is read again.
    """
    final = table["is_final"].to_numpy() & slots.finality(bars.opens(table), asked_at, grace_s)
    place = table.schema.get_field_index("is_final")
    return table.set_column(place, table.schema.field(place), pa.array(final))


def _seconds(seconds: float) -> np.timedelta64:
    return np.timedelta64(round(seconds * 1_000_000), "us")
