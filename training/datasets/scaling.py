"""Robust scaling of features, fitted on training rows only."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CLIP = 8.0
"""Scaled values are cut here: a feature far outside its training range must not drive a network."""
IQR_OF_NORMAL = 1.349


@dataclass(frozen=True)
class Scaler:
    """Centre (median) and spread (interquartile range / 1.349) of every feature, both (F,) float32."""

    center: Floats
    spread: Floats

    def transform(self, values: Floats) -> Floats:
        """Scale (..., F); NaN stays NaN, the rest lies within +-`CLIP`."""
        with np.errstate(over="ignore"):  # what overflows is clipped
            scaled: Floats = np.clip((values - self.center) / self.spread, -CLIP, CLIP)
        return scaled

    def as_dict(self) -> dict[str, Any]:
        """JSON form; float32 values survive it exactly."""
        return {
            "kind": "robust",
            "clip": CLIP,
            "center": _numbers(self.center),
            "spread": _numbers(self.spread),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Scaler:
        """The scaler of `as_dict`; ValueError when it is of another kind or has a spread that is not > 0."""
        if state.get("kind") != "robust" or state.get("clip") != CLIP:
            raise ValueError(
                f"scaler is {state.get('kind')!r}, clip {state.get('clip')!r}: expected robust, {CLIP}"
            )
        scaler = cls(np.array(state["center"], np.float32), np.array(state["spread"], np.float32))
        if scaler.center.shape != scaler.spread.shape or not (scaler.spread > 0).all():
            raise ValueError("scaler needs one centre and one spread > 0 a feature")
        return scaler


def fit(values: Floats) -> Scaler:
    """Scaler of training rows (R, F). A feature that is constant or never there gets spread 1."""
    with warnings.catch_warnings():
        # A feature may be absent throughout (volume of an index): its column is all NaN, handled below.
        warnings.filterwarnings("ignore", message="All-NaN slice encountered", category=RuntimeWarning)
        low, center, high = np.nanquantile(values.astype(np.float64), [0.25, 0.5, 0.75], axis=0)
    spread = (high - low) / IQR_OF_NORMAL
    usable = np.isfinite(spread) & (spread > 1e-12)
    return Scaler(
        center=np.where(np.isfinite(center), center, 0.0).astype(np.float32),
        spread=np.where(usable, spread, 1.0).astype(np.float32),
    )


def _numbers(values: Floats) -> list[float]:
    return [float(value) for value in values]
