from __future__ import annotations

import numpy as np
import pytest

from training.datasets.splits import Fold, Spans
from training.ensemble import FoldForecast, OutOfFold, greedy

COUNT = 400
SPANS = Spans(np.arange(2 * COUNT), np.arange(2 * COUNT) + 1)
FOLD = Fold(train=np.arange(COUNT - 2), test=np.arange(COUNT, 2 * COUNT))


def forecasts(**errors: float) -> OutOfFold:
    """Members whose forecast is the target plus independent noise of the given size."""
    random = np.random.default_rng(0)
    target = random.standard_normal(COUNT)
    members = {name: target + size * random.standard_normal(COUNT) for name, size in errors.items()}
    return OutOfFold(SPANS, [FoldForecast(FOLD, target, members)])


def test_weights_sum_to_one_and_prefer_the_better_member() -> None:
    weights = greedy(forecasts(good=0.5, bad=2.0))

    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["good"] > 0.8


def test_equal_members_with_independent_errors_share_the_weight() -> None:
    weights = greedy(forecasts(one=1.0, two=1.0))

    assert weights["one"] == pytest.approx(0.5, abs=0.1)


def test_a_pure_noise_member_costs_at_most_a_percent() -> None:
    given = forecasts(one=0.8, two=1.0, noise=50.0)
    weights = greedy(given)

    mixed = sum(weights[name] * values for name, values in given.members.items())
    best = min(float(np.mean((values - given.target) ** 2)) for values in given.members.values())
    assert float(np.mean((mixed - given.target) ** 2)) <= 1.01 * best


def test_forecasts_of_rows_that_training_has_seen_are_refused() -> None:
    inside = Fold(train=np.arange(COUNT), test=np.arange(COUNT // 2, COUNT))
    late_label = Fold(
        train=np.arange(COUNT), test=np.arange(COUNT, 2 * COUNT)
    )  # label of 399 is known at 400

    for fold in (inside, late_label):
        zeros = np.zeros(len(fold.test))
        with pytest.raises(ValueError, match="in-sample"):
            OutOfFold(SPANS, [FoldForecast(fold, zeros, {"m": zeros})])


def test_bare_arrays_are_not_out_of_fold_forecasts() -> None:
    with pytest.raises(TypeError, match="OutOfFold"):
        greedy({"m": np.zeros(3)})  # type: ignore[arg-type]
