"""When bars are looked for: on the UTC grid of a cadence, a moment after they have become final. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cluster.market.bars import grid_is_interval
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier

OFFSET_S = 0.5
"""Clocks differ by a little, and services take a moment to have the bar that has just closed."""
_SHARED_GRID_S = 900  # exchanges open at :00, :15, :30 or :45, and hourly bars with them


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often the bars of a tier are looked for."""

    tier: Tier
    interval: Interval
    cadence_s: float

    @property
    def wants_running(self) -> bool:
        """Whether the bar that still runs is wanted: why else look more often than bars close."""
        return self.cadence_s < self.interval.seconds

    def number(self, now: datetime, phase_s: float) -> int:
        """Number of the last look at or before `now`, counted from 1970."""
        return int((now.timestamp() - phase_s) // self.cadence_s)

    def moment(self, number: int, phase_s: float) -> datetime:
        """When look `number` is due."""
        return datetime.fromtimestamp(number * self.cadence_s + phase_s, tz=UTC)

    def phase_s(self, graces_s: Iterable[float]) -> float:
        """How far the looks are behind the grid: bars of providers with these graces are final by then."""
        return max(((OFFSET_S + grace_s) % self.cadence_s for grace_s in graces_s), default=OFFSET_S)

    def expected_lag_s(self, graces_s: Sequence[float]) -> float:
        """The longest time from the close of a bar to the look that finds it final."""
        phase_s, slowest_s = self.phase_s(graces_s), max(graces_s, default=0.0)
        grid_s = self.interval.seconds if grid_is_interval(self.interval) else _SHARED_GRID_S
        if self.interval.is_daily or grid_s % self.cadence_s:
            return slowest_s + self.cadence_s  # sessions close when they like
        waits = (grace_s + (phase_s - grace_s) % self.cadence_s for grace_s in graces_s)
        return max(waits, default=phase_s)
