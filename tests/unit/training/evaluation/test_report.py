from __future__ import annotations

import numpy as np
import pytest

from tests.unit.training.samples import days
from training.evaluation import report
from training.evaluation.baselines import ewma_sd, point_forecasts
from training.evaluation.report import TestForecast, TestRows


def rows(target: np.ndarray[tuple[int], np.dtype[np.float64]]) -> TestRows:
    count = len(target)
    sd = np.full(count, 0.01)
    return TestRows(target, np.roll(target, 1), sd, days(count), np.zeros(count, np.int64), 0.0005, 1)


def forecast(mean: np.ndarray[tuple[int], np.dtype[np.float64]]) -> TestForecast:
    return TestForecast(mean, mean - 0.02, mean + 0.02, np.full(len(mean), 0.5))


def test_a_model_without_skill_is_reported_as_not_better_than_zero() -> None:
    random = np.random.default_rng(0)
    target = 0.01 * random.standard_normal(500)

    card = report.build(rows(target), {"ensemble": forecast(0.0005 * random.standard_normal(500))}, 0.9)

    assert "does not differ significantly from forecasting zero" in card["verdict"]
    assert card["baselines"]["zero"]["r2_against_zero"] == 0.0
    assert card["baselines"]["zero"]["ic"] is None


@pytest.mark.parametrize(("share", "word"), [(0.5, "beats"), (-0.5, "is worse than")])
def test_a_real_difference_is_named_in_its_direction(share: float, word: str) -> None:
    target = 0.01 * np.random.default_rng(0).standard_normal(500)

    card = report.build(rows(target), {"ensemble": forecast(share * target)}, 0.9)

    assert f"ensemble's mean {word} forecasting zero" in card["verdict"]


def test_the_table_shows_every_model_beside_every_baseline() -> None:
    target = 0.01 * np.random.default_rng(0).standard_normal(50)

    text = report.as_text(report.build(rows(target), {"ensemble": forecast(0.1 * target)}, 0.9))

    assert [line.split()[0] for line in text.splitlines()[1:-1]] == [
        "ensemble",
        "zero",
        "repeat",
        "drift",
        "ewma",
    ]


def test_naive_forecasts_by_hand() -> None:
    points = point_forecasts(np.array([0.01, np.nan]), drift=0.002)

    assert {name: values.tolist() for name, values in points.items()} == {
        "zero": [0.0, 0.0],
        "repeat": [0.01, 0.0],
        "drift": [0.002, 0.002],
    }


def test_the_ewma_reacts_by_its_decay_and_keeps_symbols_apart() -> None:
    returns = np.concatenate([np.full(40, 0.01), np.full(40, 0.03)])
    first = np.repeat([0, 40], 40)

    sd = ewma_sd(returns, first)

    np.testing.assert_allclose(sd[:40], 0.01)
    np.testing.assert_allclose(sd[40:], 0.03)


def test_the_ewma_of_a_row_does_not_know_later_returns() -> None:
    returns = np.random.default_rng(0).standard_normal(100)
    changed = returns.copy()
    changed[60:] *= 9
    first = np.zeros(100, np.int64)

    np.testing.assert_array_equal(ewma_sd(returns, first)[:60], ewma_sd(changed, first)[:60])
