from __future__ import annotations

import json

import numpy as np
import pytest

from cluster.errors import NotReady
from training.calibration import Conformal, bucket_bounds, bucket_of, calibrate, conformal_rank


@pytest.mark.parametrize(
    ("count", "coverage", "rank"),
    [
        (9, 0.90, 9),  # (9 + 1) * .9 = 9: the largest of nine
        (19, 0.95, 19),
        (99, 0.99, 99),
        (99, 0.90, 90),
        (100, 0.90, 91),  # 90.9 is rounded up
        (9, 1 - (1 - 0.9), 9),  # .9 with a rounding error above it
    ],
)
def test_the_rank_has_the_finite_sample_correction(count: int, coverage: float, rank: int) -> None:
    assert conformal_rank(count, coverage) == rank


@pytest.mark.parametrize(("count", "coverage"), [(8, 0.90), (18, 0.95), (98, 0.99), (0, 0.5)])
def test_no_finite_interval_is_invented_for_too_few_scores(count: int, coverage: float) -> None:
    with pytest.raises(NotReady, match="not calibrated"):
        conformal_rank(count, coverage)


@pytest.mark.parametrize("count", [9, 19, 50, 100])
def test_coverage_holds_on_new_scores_even_for_few_old_ones(count: int) -> None:
    """20 000 draws of `count` old scores and a new one: the share inside is (rank / (count + 1))."""
    random = np.random.default_rng(count)
    old = np.abs(random.standard_normal((20_000, count)))
    new = np.abs(random.standard_normal(20_000))

    width = np.sort(old, axis=1)[:, conformal_rank(count, 0.9) - 1]

    assert np.mean(new <= width) == pytest.approx(conformal_rank(count, 0.9) / (count + 1), abs=0.01)


def test_the_half_width_is_the_score_of_that_rank() -> None:
    scores = np.array([-9.0, 1, 2, -3, 4, 5, -6, 7, 8])

    assert calibrate(scores, 0.9).half_width == 9.0
    assert calibrate(scores, 0.5).half_width == 5.0


def test_history_lengths_fall_into_the_buckets_1_8_32_63_64() -> None:
    bounds = bucket_bounds(64)

    assert bounds == (1, 8, 32, 63, 64)
    lengths = np.array([1, 2, 8, 9, 32, 33, 63, 64])
    assert bucket_of(lengths, bounds).tolist() == [0, 1, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize("window", [1, 2, 5, 16])
def test_every_length_of_a_small_window_has_a_bucket(window: int) -> None:
    bounds = bucket_bounds(window)

    assert bounds[-1] == window
    assert bucket_of(np.arange(1, window + 1), bounds).max() == len(bounds) - 1


def conformal() -> Conformal:
    random = np.random.default_rng(1)
    narrow, wide = (
        calibrate(random.standard_normal(500), 0.9),
        calibrate(3 * random.standard_normal(500), 0.9),
    )
    return Conformal(0.9, (1, 4), {"ensemble": (wide, narrow)})


def test_each_bucket_has_its_own_width() -> None:
    widths = conformal().half_width("ensemble", np.array([1, 2, 4]))

    assert widths[0] > 2.5 * widths[1]
    assert widths[1] == widths[2]


def test_probability_up_is_the_share_of_scores_above_minus_the_forecast() -> None:
    symmetric = calibrate(np.linspace(-1, 1, 201), 0.9)
    table = Conformal(0.9, (1,), {"ensemble": (symmetric,)})

    up = table.probability_up("ensemble", np.ones(4, np.int64), np.array([0.0, 0.5, -0.5, 99.0]))

    np.testing.assert_allclose(up, [0.5, 0.75, 0.25, 1 - 1 / 202], atol=1e-9)


def test_json_keeps_every_bit() -> None:
    state = json.loads(json.dumps(conformal().as_dict()))

    assert Conformal.from_dict(state).as_dict() == conformal().as_dict()


@pytest.mark.parametrize("width", [0.0, -1.0, float("inf"), float("nan")])
def test_a_width_that_is_not_finite_and_positive_is_refused(width: float) -> None:
    state = conformal().as_dict()
    state["table"]["ensemble"][0]["half_width"] = width

    with pytest.raises(ValueError, match="half widths must be finite"):
        Conformal.from_dict(state)
