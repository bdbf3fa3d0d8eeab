from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from cluster.errors import NotEnoughHistory, NotReady
from tests.unit.training import samples
from training import train
from training.bundle import FILES
from training.datasets.assemble import Dataset, assemble
from training.models.members import FittedMember, MemberTask
from training.train import Bundle

LEARNED = (
    "xgboost_optimized.ubj",
    "lstm_optimized.safetensors",
    "transformer_optimized.safetensors",
    "scaler.json",
)


def test_the_same_seed_and_data_give_the_same_bytes(tiny_dataset: Dataset, tiny_model: Bundle) -> None:
    again = train.fit(tiny_dataset, samples.TINY)

    assert set(again.files) == set(FILES)
    assert {name for name in FILES if again.files[name] != tiny_model.files[name]} == set()
    assert again.manifest == tiny_model.manifest


def test_another_seed_gives_other_weights(tiny_dataset: Dataset, tiny_model: Bundle) -> None:
    other = train.fit(tiny_dataset, samples.TINY.model_copy(update={"seed": 99}))

    assert other.files["lstm_optimized.safetensors"] != tiny_model.files["lstm_optimized.safetensors"]
    assert other.files["scaler.json"] == tiny_model.files["scaler.json"]


def test_what_is_learned_does_not_depend_on_calibration_and_test_rows(
    tiny_dataset: Dataset, tiny_model: Bundle
) -> None:
    """All that comes after the training part becomes noise: weights, scaler, volatility stay bit for bit."""
    end = np.datetime64(tiny_model.manifest["training_range"]["end"].rstrip("Z"))
    later = tiny_dataset.ts > end + np.timedelta64(1, "D")  # the label of the last training row is that day's
    random = np.random.default_rng(8)
    values, target = tiny_dataset.values.copy(), tiny_dataset.target.copy()
    values[later] = random.standard_normal(values[later].shape)
    target[later] = np.where(np.isfinite(target[later]), 0.05 * random.standard_normal(later.sum()), np.nan)

    changed = train.fit(dataclasses.replace(tiny_dataset, values=values, target=target), samples.TINY)

    assert changed.files["golden.safetensors"] != tiny_model.files["golden.safetensors"]
    assert [name for name in LEARNED if changed.files[name] != tiny_model.files[name]] == []
    before, after = (json.loads(m.files["ensemble_optimized.json"]) for m in (tiny_model, changed))
    assert after["volatility"] == before["volatility"]
    assert after["weights"] == before["weights"]
    assert after["conformal"] != before["conformal"]


def test_tasks_may_finish_in_any_order(tiny_dataset: Dataset, tiny_model: Bundle) -> None:
    def backwards(
        function: Callable[[Dataset, MemberTask], FittedMember], dataset: Dataset, tasks: Sequence[MemberTask]
    ) -> Iterator[tuple[int, FittedMember]]:
        for number in reversed(range(len(tasks))):
            yield number, function(dataset, tasks[number])

    shares: list[float] = []
    other = train.fit(
        tiny_dataset, samples.TINY, map_tasks=backwards, progress=lambda _what, share: shares.append(share)
    )

    assert other.manifest == tiny_model.manifest
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_signal_that_is_there_is_found(tiny_model: Bundle) -> None:
    """The sample's next return has a correlation of about 0.29 with one feature."""
    metrics = tiny_model.manifest["metrics"]

    assert metrics["ic"] > 0.1
    assert metrics["dm_t_against_zero"] > 1.5


def test_intervals_cover_what_they_promise_on_the_test_part(tiny_model: Bundle) -> None:
    """320 test rows and 310 calibration rows: three standard deviations of the coverage are 7 points."""
    for scores in tiny_model.report["models"].values():
        assert scores["coverage"] == pytest.approx(0.9, abs=0.07)


def test_the_manifest_tells_what_was_trained_on_what(tiny_model: Bundle) -> None:
    manifest = tiny_model.manifest

    assert manifest["features"] == {"digest": samples.DIGEST, "names": list(samples.NAMES)}
    assert (manifest["window"], manifest["horizon"], manifest["interval"]) == (16, 1, "1d")
    assert manifest["symbols"] == ["AAA", "BBB"]
    assert manifest["training_range"]["start"] == "2001-01-21T00:00:00.000000Z"
    assert manifest["training_range"]["end"] < manifest["calibration_range"]["start"]
    assert manifest["calibration_range"]["end"] < manifest["test_range"]["start"]
    assert {"numpy", "torch", "onnxruntime"} < set(manifest["libraries"])


def test_too_little_data_says_which_part_is_empty() -> None:
    with pytest.raises(NotEnoughHistory, match=r"too few bars: nothing is left for .*fold 1 train"):
        train.fit(samples.dataset(28), samples.TINY)


def test_too_few_calibration_rows_are_refused() -> None:
    split = samples.TINY.split.model_copy(update={"calibration": 0.02})

    with pytest.raises(NotReady, match="not calibrated"):
        train.fit(samples.dataset(300), samples.TINY.model_copy(update={"split": split}))


def test_random_walks_show_no_skill() -> None:
    """The canary of the whole pipeline, 5 pairs of walks: mean IC and direction within 3 standard errors."""
    tests = []
    for seed in range(5):
        parts = [samples.symbol_rows(name, 1200, 10 * seed + k, skill=0.0) for k, name in enumerate("AB")]
        tests.append(train.fit(assemble(parts, samples.NAMES, samples.DIGEST, "1d"), samples.TINY).report)

    rows = sum(report["rows"] for report in tests)
    scores = [report["models"]["ensemble"] for report in tests]
    assert rows >= 2000
    assert abs(np.mean([score["ic"] for score in scores])) < 3 / np.sqrt(rows)
    assert abs(np.mean([score["direction"] for score in scores]) - 0.5) < 3 * 0.5 / np.sqrt(rows)
    assert np.mean([score["r2_against_zero"] for score in scores]) <= 0.005
