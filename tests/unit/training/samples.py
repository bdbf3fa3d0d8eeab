"""Small synthetic datasets and a tiny configuration for the tests of training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.config import (
    FittingConfig,
    LstmConfig,
    SplitConfig,
    TrainConfig,
    TransformerConfig,
    XgboostConfig,
)
from training.datasets.assemble import Dataset, SymbolRows, assemble

NAMES = ("signal", "size", "noise", "gappy")
DIGEST = "0123456789abcdef"
WARMUP = 20

TINY = TrainConfig(
    window=16,
    seed=3,
    golden_windows=12,
    selection_rounds=20,
    split=SplitConfig(train=0.6, calibration=0.2, folds=2, embargo=2),
    xgboost=XgboostConfig(rounds=10, depth=3, eta=0.3, subsample=0.8, colsample=1.0, min_child_weight=20),
    lstm=LstmConfig(hidden=8, layers=1, dropout=0.1),
    transformer=TransformerConfig(width=8, heads=2, blocks=1, patch=4, dropout=0.1),
    fitting=FittingConfig(epochs=2, batch=128, learning_rate=0.01),
)


def days(count: int) -> NDArray[np.datetime64]:
    """`count` consecutive days as bar opens."""
    return np.datetime64("2001-01-01", "us") + np.arange(count) * np.timedelta64(1, "D")


def symbol_rows(symbol: str, count: int, seed: int, *, skill: float = 0.3) -> SymbolRows:
    """Bars whose next return depends on feature `signal` by `skill`, with volatility told by `size`."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((count, len(NAMES))).astype(np.float32)
    values[random.random(count) < 0.2, 3] = np.nan
    values[:WARMUP] = np.nan
    size = 0.01 * np.exp(0.5 * np.nan_to_num(values[:, 1]).astype(np.float64))
    noise = random.standard_normal(count)
    steps = np.zeros(count)
    steps[1:] = (size * (skill * np.nan_to_num(values[:, 0]) + noise))[:-1]
    return SymbolRows(symbol, days(count), 100 * np.exp(np.cumsum(steps)), values, WARMUP)


def dataset(count: int = 800, *, skill: float = 0.3) -> Dataset:
    """Two symbols of `count` daily bars each."""
    parts = [symbol_rows("AAA", count, 1, skill=skill), symbol_rows("BBB", count, 2, skill=skill)]
    return assemble(parts, NAMES, DIGEST, "1d")
