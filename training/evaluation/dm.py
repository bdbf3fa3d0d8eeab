"""Test of equal forecast accuracy (Diebold & Mariano 1995), small-sample factor of Harvey et al. (1997)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

Doubles = NDArray[np.float64]


class DieboldMariano(NamedTuple):
    """Statistic (positive: the model is better than the baseline) and two-sided p-value."""

    t: float
    p: float


def dm(difference: Doubles, horizon: int = 1) -> DieboldMariano:
    """Test that `difference` = baseline loss - model loss (n,), one value a moment, has mean zero.

    Bartlett-weighted long-run variance. It is slightly generous for overlapping labels: ask |t| >= 2.5 when
    horizon > 1. Equal losses throughout give t = 0, p = 1.
    """
    count = len(difference)
    centred = difference - difference.mean()
    lags = max(horizon - 1, int(4 * (count / 100) ** (2 / 9)))
    covariances = [float(centred[k:] @ centred[: count - k]) / count for k in range(min(lags, count - 1) + 1)]
    weights = [1 - k / (lags + 1) for k in range(len(covariances))]
    variance = 2 * float(np.dot(weights, covariances)) - covariances[0]
    if variance <= 0:
        return DieboldMariano(0.0, 1.0)
    small_sample = np.sqrt((count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count)
    t = float(difference.mean() / np.sqrt(variance / count) * small_sample)
    return DieboldMariano(t, float(2 * stdtr(count - 1, -abs(t))))


def mean_by_time(values: Doubles, times: NDArray[np.datetime64]) -> Doubles:
    """One value a moment: the mean over the symbols that have one then, in order of time."""
    _, place = np.unique(times, return_inverse=True)
    sums = np.bincount(place, weights=values)
    return np.asarray(sums / np.bincount(place), dtype=np.float64)
