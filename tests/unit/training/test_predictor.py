from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.errors import BadFeatures, InputError
from tests.unit.training import samples
from training.datasets.assemble import Dataset
from training.datasets.windows import gather
from training.predictor import Forecast, Predictor

Histories = NDArray[np.float32]
TYPES = ["ensemble", "xgboost", "lstm", "transformer"]


def numbers(forecast: Forecast) -> NDArray[np.float64]:
    return np.stack([forecast.mean, forecast.lower, forecast.upper, forecast.probability_up])


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("length", range(1, 17))
def test_any_history_from_one_row_on_is_legal(
    tiny_predictor: Predictor, histories: Histories, model_type: str, length: int
) -> None:
    forecast = tiny_predictor.predict(histories[:, -length:], model_type)

    assert np.isfinite(numbers(forecast)).all()
    assert (forecast.lower < forecast.mean).all()
    assert (forecast.mean < forecast.upper).all()
    assert ((forecast.probability_up > 0) & (forecast.probability_up < 1)).all()


@pytest.mark.parametrize("model_type", TYPES)
def test_a_batch_gives_every_sample_what_it_gets_alone(
    tiny_predictor: Predictor, histories: Histories, model_type: str
) -> None:
    together = numbers(tiny_predictor.predict(histories, model_type))
    reversed_order = numbers(tiny_predictor.predict(histories[::-1], model_type))
    alone = np.concatenate([numbers(tiny_predictor.predict(one, model_type)) for one in histories], axis=1)

    np.testing.assert_allclose(reversed_order[:, ::-1], together, atol=1e-7)
    np.testing.assert_allclose(alone, together, atol=1e-7)


def test_histories_of_different_lengths_share_a_batch(
    tiny_predictor: Predictor, histories: Histories
) -> None:
    lengths = [1, 5, 16, 9]
    mixed = [history[-length:] for history, length in zip(histories, lengths, strict=False)]

    padded = np.full_like(histories[: len(lengths), -tiny_predictor.window :], np.nan)
    for rows, history in zip(padded, mixed, strict=True):
        rows[-len(history) :] = history

    batch = numbers(tiny_predictor.predict(padded))
    alone = np.concatenate([numbers(tiny_predictor.predict(one)) for one in mixed], axis=1)

    np.testing.assert_allclose(batch, alone, atol=1e-7)


def test_rows_older_than_the_window_do_not_matter(tiny_predictor: Predictor, tiny_dataset: Dataset) -> None:
    rows = tiny_dataset.values[100:150]

    np.testing.assert_array_equal(
        numbers(tiny_predictor.predict(rows)), numbers(tiny_predictor.predict(rows[-16:]))
    )


def test_the_future_does_not_change_a_forecast(tiny_predictor: Predictor, tiny_dataset: Dataset) -> None:
    now = 400
    changed = tiny_dataset.values.copy()
    changed[now + 1 : 800] = 1e3
    ends = np.arange(300, now + 1)

    before, after = (
        numbers(tiny_predictor.predict(gather(values, tiny_dataset.first, ends, 16)))
        for values in (tiny_dataset.values, changed)
    )

    np.testing.assert_array_equal(before, after)


def test_the_ensemble_is_the_weighted_mean_of_its_members(
    tiny_predictor: Predictor, histories: Histories
) -> None:
    forecast = tiny_predictor.predict(histories)

    stacked = np.stack(list(forecast.members.values()))
    assert list(forecast.members) == ["xgboost", "lstm", "transformer"]
    assert (forecast.mean <= stacked.max(axis=0) + 1e-12).all()
    assert (forecast.mean >= stacked.min(axis=0) - 1e-12).all()
    lone = tiny_predictor.predict(histories, "lstm")
    np.testing.assert_array_equal(lone.mean, lone.members["lstm"])
    np.testing.assert_allclose(lone.mean, forecast.members["lstm"], atol=1e-9)


def test_an_unknown_value_is_legal_and_an_unknown_newest_row_is_not(
    tiny_predictor: Predictor, histories: Histories
) -> None:
    rows = histories[0].copy()
    rows[-1, 1:] = np.nan
    assert np.isfinite(numbers(tiny_predictor.predict(rows))).all()

    rows[-1] = np.nan
    with pytest.raises(BadFeatures, match="newest feature row"):
        tiny_predictor.predict(rows)


@pytest.mark.parametrize("shape", [(4,), (16, 3), (2, 16, 5), (2, 0, 4), (0, 4), (1, 1, 16, 4)])
def test_a_wrong_shape_says_what_was_expected(tiny_predictor: Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadFeatures, match=r"\(rows, 4\) or \(samples, rows, 4\).*signal to gappy"):
        tiny_predictor.predict(np.zeros(shape, np.float32))


def test_infinity_is_refused(tiny_predictor: Predictor) -> None:
    with pytest.raises(BadFeatures, match="infinity"):
        tiny_predictor.predict(np.array([[np.inf, 0, 0, 0]], np.float32))


def test_no_sample_gives_no_forecast(tiny_predictor: Predictor) -> None:
    assert numbers(tiny_predictor.predict(np.zeros((0, 16, 4), np.float32))).shape == (4, 0)


def test_an_unknown_model_type_names_the_known_ones(tiny_predictor: Predictor) -> None:
    with pytest.raises(InputError, match="ensemble, xgboost, lstm, transformer"):
        tiny_predictor.predict(np.zeros((1, 4), np.float32), "prophet")


def test_it_knows_what_it_serves(tiny_predictor: Predictor) -> None:
    assert tiny_predictor.feature_names == samples.NAMES
    assert (tiny_predictor.window, tiny_predictor.horizon, tiny_predictor.interval) == (16, 1, "1d")
    assert tiny_predictor.coverage == 0.9
    assert set(tiny_predictor.metrics) >= {"mae", "rmse", "coverage", "winkler", "dm_t_against_zero"}


def test_serving_needs_neither_torch_nor_mlflow_nor_ray(bundle_dir: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from training import registry; import numpy as np;"
        f"p = registry.load(Path({str(bundle_dir)!r}), feature_digest={samples.DIGEST!r});"
        "p.predict(np.zeros((1, 4), np.float32));"
        "print([m for m in ('torch', 'mlflow', 'ray', 'onnx') if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )

    assert done.stdout.strip() == "[]"
