from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from training.models import volatility
from training.models.volatility import Volatility


def sample(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, 3)).astype(np.float32)
    return rows, 0.01 * np.exp(0.5 * rows[:, 0]) * random.standard_normal(count)


def test_it_finds_the_feature_that_tells_the_size_of_the_next_return() -> None:
    rows, target = sample(4000, 1)
    unseen, future = sample(4000, 2)

    scale = volatility.fit(rows, target, ridge=0.01).scale(unseen)

    standardised = future / scale
    quiet, loud = scale < np.median(scale), scale >= np.median(scale)
    assert standardised.std() == pytest.approx(1.0, abs=0.08)
    assert future[loud].std() > 1.8 * future[quiet].std()
    assert standardised[loud].std() < 1.25 * standardised[quiet].std()


def test_the_scale_is_positive_and_stays_in_its_training_range_for_any_row() -> None:
    rows, target = sample(500, 1)
    model = volatility.fit(rows, target, ridge=0.01)
    trained = model.scale(rows)

    odd = np.array([[8, 8, 8], [-8, -8, -8], [np.nan, np.nan, np.nan]], np.float32)

    assert (model.scale(odd) > 0).all()
    assert model.scale(odd).max() <= trained.max() * (1 + 1e-9)
    assert model.scale(odd).min() >= trained.min() * (1 - 1e-9)


def test_json_keeps_every_bit() -> None:
    rows, target = sample(500, 1)
    model = volatility.fit(rows, target, ridge=0.01)

    back = Volatility.from_dict(json.loads(json.dumps(model.as_dict())))

    np.testing.assert_array_equal(back.scale(rows), model.scale(rows))
