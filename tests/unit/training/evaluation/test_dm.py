from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.dm import dm, mean_by_time


def test_statistic_by_hand() -> None:
    # n = 4, mean 1.5, deviations -.5 .5 -.5 .5; lag 1 = int(4 * (4 / 100) ** (2 / 9)) = 1
    # g0 = .25, g1 = -.1875, Bartlett weight .5: v = .0625; t = 1.5 / sqrt(.0625 / 4) * sqrt(3 / 4)
    test = dm(np.array([1.0, 2.0, 1.0, 2.0]))

    assert test.t == pytest.approx(1.5 / 0.125 * np.sqrt(0.75))


def test_equal_losses_are_no_evidence() -> None:
    assert dm(np.zeros(50)) == (0.0, 1.0)


def test_the_better_model_has_a_positive_statistic() -> None:
    losses = np.random.default_rng(0).standard_normal(400)

    assert dm(losses + 0.5).t > 2.5 > -2.5 > dm(losses - 0.5).t


@pytest.mark.parametrize(("horizon", "most"), [(1, 0.09), (5, 0.12)])
def test_without_a_difference_it_rejects_about_as_often_as_it_says(horizon: int, most: float) -> None:
    """Size at nominal 5 %, n = 500, 1000 runs; overlapping labels make the losses moving averages."""
    random = np.random.default_rng(11)
    draws = random.standard_normal((1000, 500 + horizon - 1))
    losses = np.lib.stride_tricks.sliding_window_view(draws, horizon, axis=1).mean(axis=2)

    rejected = np.mean([dm(run, horizon).p < 0.05 for run in losses])

    assert 0.03 < rejected < most


def test_symbols_are_averaged_at_each_moment_first() -> None:
    times = np.array(["2020-01-02", "2020-01-01", "2020-01-02"], dtype="datetime64[D]")

    assert mean_by_time(np.array([1.0, 5.0, 3.0]), times).tolist() == [5.0, 2.0]
