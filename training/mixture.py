"""Scaler, volatility model, members and weights as one forecaster, before calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.datasets.scaling import Scaler
from training.models.members import Member
from training.models.volatility import Volatility

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Outputs:
    """Forecast scale (N,) and standardised forecasts (N,) by model type."""

    scale: Doubles
    z: Mapping[str, Doubles]


@dataclass(frozen=True)
class Mixture:
    """Members and their weights, which sum to 1."""

    scaler: Scaler
    volatility: Volatility
    members: Mapping[str, Member]
    weights: Mapping[str, float]

    @property
    def model_types(self) -> tuple[str, ...]:
        """What may be asked for: the ensemble and each member."""
        return (ENSEMBLE, *self.members)

    def outputs(self, windows: Floats, model_types: Sequence[str]) -> Outputs:
        """Forecasts of raw windows (N, window, F); members that are not needed do not run."""
        scaled = self.scaler.transform(windows)
        needed = self.members if ENSEMBLE in model_types else set(model_types)
        z = {name: member.predict(scaled) for name, member in self.members.items() if name in needed}
        if ENSEMBLE in model_types:
            parts = [self.weights[name] * z[name] for name in self.members]
            z[ENSEMBLE] = np.sum(parts, axis=0)
        return Outputs(self.volatility.scale(scaled[:, -1]), z)
