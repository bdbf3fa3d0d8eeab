"""A random walk cannot be forecast: features that do so know the future."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
import pywt
from numpy.typing import NDArray

from tests.unit.training.features.walks import numbers, walk
from training.features import compute

WALKS = 5
TRAIN, TEST = 5600, 2400
WARMUP = 169
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Skill:
    """Out-of-sample skill over all walks: mean correlation, share of right signs, R2 against zero."""

    correlation: float
    direction: float
    r2: float

    @property
    def is_honest(self) -> bool:
        """Within what chance allows on a random walk."""
        samples = WALKS * TEST
        return (
            abs(self.correlation) < 3 / np.sqrt(samples)
            and abs(self.direction - 0.5) < 3 * 0.5 / np.sqrt(samples)
            and self.r2 <= 0.005
        )


def linear_forecast(features: Matrix, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit least squares on the first rows, forecast the rest; scaled on the training rows."""
    mean, deviation = features[:TRAIN].mean(axis=0), features[:TRAIN].std(axis=0)
    scaled = np.column_stack([(features - mean) / deviation, np.ones(len(features))])
    weights, *_ = np.linalg.lstsq(scaled[:TRAIN], target[:TRAIN], rcond=None)
    return np.asarray(scaled[TRAIN:] @ weights)


def skill(matrices: list[tuple[Matrix, NDArray[np.float64]]]) -> Skill:
    correlations, right, errors, squares = [], [], 0.0, 0.0
    for features, target in matrices:
        forecast, truth = linear_forecast(features, target), target[TRAIN:]
        correlations.append(np.corrcoef(forecast, truth)[0, 1])
        right.append(np.mean(np.sign(forecast) == np.sign(truth)))
        errors += float(np.sum((truth - forecast) ** 2))
        squares += float(np.sum(truth**2))
    return Skill(float(np.mean(correlations)), float(np.mean(right)), 1 - errors / squares)


def rows_and_next_return(table: pa.Table, features: Matrix) -> tuple[Matrix, NDArray[np.float64]]:
    """Pair the features of a bar with the log return of the next one."""
    returns = np.diff(np.log(numbers(table, "close")))
    return features[WARMUP:-1], returns[WARMUP:]


@pytest.fixture(scope="module")
def walks() -> list[pa.Table]:
    return [walk(WARMUP + TRAIN + TEST + 1, seed=seed) for seed in range(50, 50 + WALKS)]


def test_the_features_have_no_skill_on_random_walks(walks: list[pa.Table]) -> None:
    matrices = [rows_and_next_return(table, compute(table).values.astype(np.float64)) for table in walks]
    found = skill(matrices)
    assert found.is_honest, found


def test_the_whole_series_transform_is_caught(walks: list[pa.Table]) -> None:
    """The test of the test: coefficients that read 4 to 60 bars ahead, added to the honest features."""
    matrices = []
    for table in walks:
        returns = np.concatenate(([0.0], np.diff(np.log(numbers(table, "close")))))
        padded = np.pad(returns, (0, -len(returns) % 16))
        leaks = [detail[: len(returns)] for _, detail in pywt.swt(padded, "db4", level=4, norm=True)]
        features = np.column_stack([compute(table).values, *leaks]).astype(np.float64)
        matrices.append(rows_and_next_return(table, features))
    found = skill(matrices)
    assert not found.is_honest
    assert found.correlation > 0.2
