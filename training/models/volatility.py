"""The scale of the next return, as a function of one feature row.

Closed-form ridge regression of ln(|y| + eps) on the scaled features (a log-HAR in spirit: Corsi 2009), with
one factor that corrects the bias of the logarithm. It depends on nothing but the row, so that a lone feature
row can be forecast with the same scale as a full history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

EPS_SHARE = 0.05
"""eps = this share of the target's standard deviation; keeps ln defined for a zero return."""


@dataclass(frozen=True)
class Volatility:
    """Weights (F,) and intercept of ln scale, and the range of training that a forecast is held to."""

    weights: Doubles
    intercept: float
    lowest: float
    highest: float

    def scale(self, rows: Floats) -> Doubles:
        """Standard deviation > 0 (N,) of the next return for scaled rows (N, F); NaN counts as the centre."""
        log_scale = np.nan_to_num(rows).astype(np.float64) @ self.weights + self.intercept
        return np.exp(np.clip(log_scale, self.lowest, self.highest))

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "weights": [float(weight) for weight in self.weights],
            "intercept": self.intercept,
            "lowest": self.lowest,
            "highest": self.highest,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Volatility:
        """The model of `as_dict`."""
        weights = np.array(state["weights"], np.float64)
        return cls(weights, float(state["intercept"]), float(state["lowest"]), float(state["highest"]))


def fit(rows: Floats, target: Doubles, ridge: float) -> Volatility:
    """Fit on scaled training rows (N, F) and their returns (N,); `ridge` is the penalty per row."""
    inputs = np.nan_to_num(rows).astype(np.float64)
    mean = inputs.mean(axis=0)
    centred = inputs - mean
    size = np.log(np.abs(target) + EPS_SHARE * target.std() + 1e-12)
    gram = centred.T @ centred / len(target) + ridge * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (size - size.mean()) / len(target))
    raw = centred @ weights + size.mean()
    bias = 0.5 * float(np.log(np.mean((target / np.exp(raw)) ** 2) + 1e-12))
    intercept = float(size.mean() - mean @ weights) + bias
    return Volatility(weights, intercept, float(raw.min()) + bias, float(raw.max()) + bias)
