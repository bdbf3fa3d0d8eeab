from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from cluster.errors import BadFeatures, NotEnoughHistory
from tests.unit.training import samples
from training import predictor
from training.datasets.assemble import Dataset
from training.evaluate import evaluate
from training.predictor import Predictor
from training.train import Bundle


def test_the_training_dataset_gives_the_report_of_the_training(
    tiny_predictor: Predictor, tiny_dataset: Dataset, tiny_model: Bundle
) -> None:
    assert evaluate([tiny_predictor], tiny_dataset) == [tiny_model.report]


def test_only_rows_after_the_calibration_part_count(tiny_predictor: Predictor, tiny_model: Bundle) -> None:
    """200 bars more of both symbols: the report begins where it did and has 400 rows more."""
    [longer] = evaluate([tiny_predictor], samples.dataset(1000))

    assert longer["start"] == tiny_model.report["start"]
    assert longer["rows"] == tiny_model.report["rows"] + 400


def test_several_are_judged_on_the_rows_that_none_of_them_has_seen(
    tiny_predictor: Predictor, tiny_dataset: Dataset, tiny_model: Bundle
) -> None:
    later = str(tiny_dataset.ts[700])
    facts = {**tiny_model.manifest, "test_range": {"start": f"{later}Z"}}
    younger = predictor.from_files(tiny_model.files, facts, "tiny", "2")

    one, other = evaluate([tiny_predictor, younger], tiny_dataset)

    assert one == other
    assert one["start"] == f"{later}Z"
    assert one["rows"] < tiny_model.report["rows"]


@pytest.mark.parametrize("kind", [{"digest": "other"}, {"interval": "1h"}, {"horizon": 2}])
def test_a_dataset_of_another_kind_is_refused(
    tiny_predictor: Predictor, tiny_dataset: Dataset, kind: dict[str, Any]
) -> None:
    with pytest.raises(BadFeatures, match=f"{next(iter(kind.values()))}.* was trained on"):
        evaluate([tiny_predictor], dataclasses.replace(tiny_dataset, **kind))


def test_without_rows_in_the_test_time_it_says_since_when_it_looked(
    tiny_predictor: Predictor, tiny_dataset: Dataset
) -> None:
    before = dataclasses.replace(tiny_dataset, usable=tiny_dataset.usable & (np.arange(1600) < 300))

    with pytest.raises(NotEnoughHistory, match="no two bars since 2002-"):
        evaluate([tiny_predictor], before)
