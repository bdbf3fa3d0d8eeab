"""XGBoost on the newest row of a window; it takes missing values as they are."""

from __future__ import annotations

import numpy as np
import xgboost
from numpy.typing import NDArray

from training.config import XgboostConfig

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def fit(rows: Floats, z: Doubles, config: XgboostConfig, *, seed: int, threads: int) -> bytes:
    """Train on scaled rows (N, F) and standardised returns (N,); the booster as UBJSON."""
    params = {
        "objective": "reg:squarederror",
        "tree_method": "hist",
        "max_depth": config.depth,
        "eta": config.eta,
        "subsample": config.subsample,
        "colsample_bytree": config.colsample,
        "min_child_weight": config.min_child_weight,
        "max_bin": config.max_bin,
        "seed": seed,
        "nthread": threads,
        "base_score": 0.0,  # no drift is learned from the mean: the trees must earn every deviation from zero
    }
    matrix = xgboost.QuantileDMatrix(rows, z, max_bin=config.max_bin, nthread=threads)
    booster = xgboost.train(params, matrix, num_boost_round=config.rounds)
    return bytes(booster.save_raw("ubj"))


class XgboostMember:
    """A trained booster, on one thread."""

    def __init__(self, ubj: bytes) -> None:
        self._booster = xgboost.Booster()
        self._booster.load_model(bytearray(ubj))
        self._booster.set_param({"nthread": 1, "device": "cpu"})
        self.width = int(self._booster.num_features())

    def predict(self, windows: Floats) -> Doubles:
        """Standardised return (N,) of scaled windows (N, L, F); uses the last row only."""
        rows = np.ascontiguousarray(windows[:, -1])
        if len(rows) == 0:
            return np.zeros(0)
        return np.asarray(self._booster.inplace_predict(rows), dtype=np.float64)
