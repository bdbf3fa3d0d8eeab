"""What is forecast: the log return of the bars that follow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

Z_LIMIT = 5.0
"""Standardised targets are cut here, so that one crash does not own the fit."""


def past_return(close: Doubles) -> Doubles:
    """ln(close_t / close_{t-1}) of one symbol, (T,); the first is NaN."""
    returns = np.full(len(close), np.nan)
    returns[1:] = np.log(close[1:] / close[:-1])
    return returns


def future_return(close: Doubles, horizon: int = 1) -> Doubles:
    """ln(close_{t+horizon} / close_t) of one symbol, (T,); NaN where not known yet (the end)."""
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 bar, not {horizon}")
    returns = np.full(len(close), np.nan)
    returns[:-horizon] = np.log(close[horizon:] / close[:-horizon])
    return returns


def standardise(target: Doubles, scale: Doubles) -> Doubles:
    """Target in units of its forecast scale, cut at +-`Z_LIMIT`; what the return models learn."""
    return np.clip(target / scale, -Z_LIMIT, Z_LIMIT)
