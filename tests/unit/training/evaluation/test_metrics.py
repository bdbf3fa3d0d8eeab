from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluation import metrics

TARGET = np.array([1.0, -2.0, 3.0, 0.0])
FORECAST = np.array([2.0, -1.0, -1.0, 1.0])


def test_errors_by_hand() -> None:
    assert metrics.mae(TARGET, FORECAST) == pytest.approx((1 + 1 + 4 + 1) / 4)
    assert metrics.rmse(TARGET, FORECAST) == pytest.approx(math.sqrt((1 + 1 + 16 + 1) / 4))


def test_r2_is_measured_against_the_forecast_zero() -> None:
    assert metrics.r2_against_zero(TARGET, FORECAST) == pytest.approx(1 - 19 / 14)
    assert metrics.r2_against_zero(TARGET, np.zeros(4)) == 0.0


def test_direction_leaves_out_what_did_not_move() -> None:
    assert metrics.direction(TARGET, FORECAST) == pytest.approx(2 / 3)
    assert math.isnan(metrics.direction(TARGET, np.zeros(4)))


def test_correlations_by_hand() -> None:
    assert metrics.ic(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])) == pytest.approx(1.0)
    assert metrics.rank_ic(np.array([1.0, 2.0, 300.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert math.isnan(metrics.ic(TARGET, np.ones(4)))


def test_equal_values_share_their_mean_rank() -> None:
    assert metrics.ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [2.5, 1.0, 2.5, 4.0]


def test_interval_scores_by_hand() -> None:
    target = np.array([0.0, 5.0, -3.0, 1.0])
    lower, upper = np.full(4, -1.0), np.full(4, 1.0)

    assert metrics.coverage(target, lower, upper) == 0.5
    # width 2 everywhere, misses of 4 and 2, each times 2 / 0.1
    assert metrics.winkler(target, lower, upper, 0.9) == pytest.approx(2 + (4 + 2) * 20 / 4)


def test_brier_score_of_a_coin_is_a_quarter() -> None:
    assert metrics.brier(np.array([1.0, -1.0]), np.array([0.5, 0.5])) == 0.25
    assert metrics.brier(np.array([1.0, -1.0]), np.array([1.0, 0.0])) == 0.0
