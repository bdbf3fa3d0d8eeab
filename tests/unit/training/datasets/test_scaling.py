from __future__ import annotations

import json

import numpy as np
import pytest

from training.datasets import scaling
from training.datasets.scaling import Scaler


def test_centre_is_the_median_and_spread_the_interquartile_range_over_1_349() -> None:
    column = np.array([[0.0], [1.0], [2.0], [3.0], [1000.0]], np.float32)

    scaler = scaling.fit(column)

    assert scaler.center.tolist() == [2.0]
    assert scaler.spread[0] == pytest.approx(2.0 / 1.349)


def test_missing_values_stay_missing_and_extreme_ones_are_cut() -> None:
    scaler = Scaler(np.array([1.0], np.float32), np.array([2.0], np.float32))

    scaled = scaler.transform(np.array([[5.0], [np.nan], [1e9], [-1e9]], np.float32))

    np.testing.assert_array_equal(scaled, np.array([[2.0], [np.nan], [8.0], [-8.0]], np.float32))


def test_a_feature_that_is_constant_or_never_there_does_not_divide_by_zero() -> None:
    values = np.array([[7.0, np.nan], [7.0, np.nan], [7.0, np.nan]], np.float32)

    scaler = scaling.fit(values)

    assert scaler.spread.tolist() == [1.0, 1.0]
    assert scaler.transform(values)[:, 0].tolist() == [0.0, 0.0, 0.0]


def test_json_keeps_every_bit() -> None:
    scaler = scaling.fit(np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32))

    back = Scaler.from_dict(json.loads(json.dumps(scaler.as_dict())))

    np.testing.assert_array_equal(back.center, scaler.center)
    np.testing.assert_array_equal(back.spread, scaler.spread)


@pytest.mark.parametrize(
    "state",
    [
        {"kind": "standard", "clip": 8.0, "center": [0.0], "spread": [1.0]},
        {"kind": "robust", "clip": 5.0, "center": [0.0], "spread": [1.0]},
        {"kind": "robust", "clip": 8.0, "center": [0.0], "spread": [0.0]},
        {"kind": "robust", "clip": 8.0, "center": [0.0, 1.0], "spread": [1.0]},
    ],
)
def test_a_scaler_of_another_kind_or_without_spread_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"scaler|spread"):
        Scaler.from_dict(state)
