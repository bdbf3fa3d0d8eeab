"""Forecasts that cost nothing; a model that does not beat them has learned nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Doubles = NDArray[np.float64]

DECAY = 0.94
"""RiskMetrics' daily decay."""
NORMAL_95 = 1.6448536269514722


def point_forecasts(returns: Doubles, drift: float) -> dict[str, Doubles]:
    """Next return by the naive rules, from each bar's own return (N,) and the mean training return."""
    return {
        "zero": np.zeros_like(returns),
        "repeat": np.nan_to_num(returns),
        "drift": np.full_like(returns, drift),
    }


def ewma_sd(returns: Doubles, first: NDArray[np.int64], decay: float = DECAY) -> Doubles:
    """Standard deviation (R,) of the next return, from returns up to the row; each symbol on its own.

    `first` (R,) is the first row of the row's symbol. Starts at the mean of the first 20 squared returns,
    which only touches rows of the warm-up.
    """
    result = np.empty_like(returns)
    starts = np.unique(first)
    for start, end in zip(starts, [*starts[1:], len(returns)], strict=True):
        squared = np.nan_to_num(returns[start:end]) ** 2
        memory = [decay * squared[1:21].mean()] if len(squared) > 1 else [0.0]
        variance, _ = lfilter([1 - decay], [1, -decay], squared, zi=memory)
        result[start:end] = np.sqrt(variance)
    return result
