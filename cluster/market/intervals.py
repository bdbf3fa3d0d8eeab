"""Bar intervals: their length and their UTC grid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Interval(StrEnum):
    """Length of a bar, in the field's usual spelling; being a str, it goes into SQL and JSON as it is."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    D1 = "1d"

    @property
    def seconds(self) -> int:
        """Seconds between two grid points; for `1d` the nominal 86 400."""
        return _SECONDS[self]

    @property
    def is_daily(self) -> bool:
        """Whether a bar is one session of the exchange calendar and not a slot of a fixed UTC grid."""
        return self is Interval.D1

    def floor(self, moment: datetime) -> datetime:
        """The last grid point at or before `moment` (UTC; intraday intervals only)."""
        if self.is_daily:
            raise ValueError("1d has no fixed grid; ask the exchange calendar for the session open")
        elapsed_s = int(moment.timestamp())
        return datetime.fromtimestamp(elapsed_s - elapsed_s % self.seconds, tz=UTC)

    def next(self, moment: datetime) -> datetime:
        """The first grid point after `moment`."""
        return self.floor(moment) + timedelta(seconds=self.seconds)


_SECONDS = {
    Interval.M1: 60,
    Interval.M5: 300,
    Interval.M15: 900,
    Interval.M30: 1_800,
    Interval.H1: 3_600,
    Interval.D1: 86_400,
}
