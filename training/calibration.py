"""Split conformal intervals, normalised by the volatility forecast, for each model and history bucket.

Score = (return - forecast) / scale. The interval takes the k-th smallest |score| of n, with
k = ceil((n + 1) * coverage): that finite-sample correction keeps the coverage at its level for small n (Vovk;
Lei et al. 2018). Short histories are forecast worse, so each bucket of history lengths has its own scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import NotReady

Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]

GRID = 201
"""Points at which the distribution of the scores is kept, for `probability_up`."""
ROUNDING = 1e-9
"""Taken off before rounding up: (n + 1) * coverage may sit a rounding error above a whole number."""


def conformal_rank(count: int, coverage: float) -> int:
    """Which smallest |score| of `count` bounds the interval. NotReady when none does: too few scores."""
    rank = math.ceil((count + 1) * coverage - ROUNDING)
    if rank > count:
        needed = math.ceil(coverage / (1 - coverage) - ROUNDING)
        raise NotReady(
            f"not calibrated: {count} past forecasts, a {coverage:.0%} interval needs {needed}; add bars"
        )
    return rank


def bucket_bounds(window: int) -> tuple[int, ...]:
    """Longest history of each bucket; for a window of 64: 1, 8, 32, 63, 64."""
    bounds = {1, window // 8, window // 2, window - 1, window}
    return tuple(sorted(bound for bound in bounds if bound >= 1))


def bucket_of(lengths: Rows, bounds: tuple[int, ...]) -> Rows:
    """Bucket number (N,) of history lengths (N,) in 1..window."""
    return np.searchsorted(np.asarray(bounds), lengths).astype(np.int64)


@dataclass(frozen=True)
class Calibration:
    """One bucket: half width of the interval in units of scale, quantiles (GRID,) of the signed scores."""

    count: int
    half_width: float
    scores: Doubles

    def probability_above(self, z: Doubles) -> Doubles:
        """Share (N,) of the scores above `z` (N,), never exactly 0 or 1: n scores cannot tell that."""
        below = np.interp(z, self.scores, np.linspace(0.0, 1.0, len(self.scores)))
        return 1.0 - np.clip(below, 1 / (self.count + 1), self.count / (self.count + 1))


def calibrate(scores: Doubles, coverage: float) -> Calibration:
    """Calibration of signed scores (n,). NotReady when n is too small for a finite interval (90 %: n < 9)."""
    rank = conformal_rank(len(scores), coverage)
    half_width = float(np.sort(np.abs(scores))[rank - 1])
    return Calibration(len(scores), half_width, np.quantile(scores, np.linspace(0.0, 1.0, GRID)))


@dataclass(frozen=True)
class Conformal:
    """Calibrations by model type, one a history bucket."""

    coverage: float
    bounds: tuple[int, ...]
    table: Mapping[str, tuple[Calibration, ...]]

    def half_width(self, model_type: str, lengths: Rows) -> Doubles:
        """Half width (N,) of the interval, in units of scale, for histories of these lengths (N,)."""
        widths = np.array([calibration.half_width for calibration in self.table[model_type]])
        return widths[bucket_of(lengths, self.bounds)]

    def probability_up(self, model_type: str, lengths: Rows, z: Doubles) -> Doubles:
        """P(next return > 0) (N,) for standardised forecasts `z` (N,): the share of scores above -z."""
        chances = np.empty(len(z))
        buckets = bucket_of(lengths, self.bounds)
        for bucket in np.unique(buckets):
            at = buckets == bucket
            chances[at] = self.table[model_type][bucket].probability_above(-z[at])
        return chances

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        table = {
            name: [
                {"count": one.count, "half_width": one.half_width, "scores": [float(s) for s in one.scores]}
                for one in row
            ]
            for name, row in self.table.items()
        }
        return {"coverage": self.coverage, "bounds": list(self.bounds), "table": table}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Conformal:
        """The calibrations of `as_dict`. ValueError when one is not a finite, positive width."""
        table = {
            name: tuple(
                Calibration(int(one["count"]), float(one["half_width"]), np.array(one["scores"], np.float64))
                for one in row
            )
            for name, row in state["table"].items()
        }
        if not all(0 < one.half_width < math.inf for row in table.values() for one in row):
            raise ValueError("conformal half widths must be finite and > 0")
        return cls(float(state["coverage"]), tuple(int(b) for b in state["bounds"]), table)
