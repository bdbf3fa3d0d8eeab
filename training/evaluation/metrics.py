"""Measures of forecasts of log returns: pure functions of (N,) arrays, NaN where they have no value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def mae(target: Doubles, forecast: Doubles) -> float:
    """Mean absolute error."""
    return float(np.abs(target - forecast).mean())


def rmse(target: Doubles, forecast: Doubles) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(((target - forecast) ** 2).mean()))


def ic(target: Doubles, forecast: Doubles) -> float:
    """Information coefficient: Pearson correlation; NaN for a constant forecast."""
    a, b = target - target.mean(), forecast - forecast.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def rank_ic(target: Doubles, forecast: Doubles) -> float:
    """Spearman correlation; ties get their mean rank."""
    return ic(ranks(target), ranks(forecast))


def ranks(values: Doubles) -> Doubles:
    """Ranks 1..N, equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: Doubles = (last - (counts - 1) / 2)[place]
    return middle


def direction(target: Doubles, forecast: Doubles) -> float:
    """Share of the moves whose sign was forecast; zero returns and zero forecasts are left out."""
    told = (target != 0) & (forecast != 0)
    return float((np.sign(target[told]) == np.sign(forecast[told])).mean()) if told.any() else float("nan")


def r2_against_zero(target: Doubles, forecast: Doubles) -> float:
    """1 - squared error / squared error of the forecast 0; negative when forecasting nothing is better."""
    return float(1 - ((target - forecast) ** 2).sum() / (target**2).sum())


def coverage(target: Doubles, lower: Doubles, upper: Doubles) -> float:
    """Share of the returns inside their interval, bounds included."""
    return float(((lower <= target) & (target <= upper)).mean())


def winkler(target: Doubles, lower: Doubles, upper: Doubles, level: float) -> float:
    """Mean interval score (Winkler 1972): width plus 2 / (1 - level) times how far a return lies outside."""
    outside = np.maximum(lower - target, 0) + np.maximum(target - upper, 0)
    return float((upper - lower + 2 / (1 - level) * outside).mean())


def brier(target: Doubles, probability_up: Doubles) -> float:
    """Mean squared error of P(return > 0); 0.25 is what a constant 0.5 scores."""
    return float((((target > 0) - probability_up) ** 2).mean())
