"""Reports of predictors on rows that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import BadFeatures, NotEnoughHistory
from training.datasets import windows
from training.datasets.assemble import Dataset
from training.evaluation import report
from training.evaluation.baselines import ewma_sd
from training.predictor import Predictor


def evaluate(predictors: Sequence[Predictor], dataset: Dataset) -> list[dict[str, Any]]:
    """One report (see `training.evaluation.report.build`) for each predictor, all on the same rows.

    These are the rows that are later than the training and calibration parts of every one of them; bars that
    came after a training are part of it. BadFeatures when the dataset is of another kind than a predictor was
    trained on, NotEnoughHistory when it has less than two such rows.
    """
    for predictor in predictors:
        _require_same_kind(predictor, dataset)
    start = max(np.datetime64(one.manifest["test_range"]["start"].rstrip("Z")) for one in predictors)
    rows = dataset.rows[dataset.ts[dataset.rows] >= start]
    if len(rows) < 2:
        raise NotEnoughHistory(
            f"no two bars since {start} that no version was trained on; `finsight ingest` gets newer ones"
        )
    return [report_on(predictor, dataset, rows) for predictor in predictors]


def _require_same_kind(predictor: Predictor, dataset: Dataset) -> None:
    trained = (predictor.manifest["features"]["digest"], predictor.interval, predictor.horizon)
    given = (dataset.digest, dataset.interval, dataset.horizon)
    if given != trained:
        raise BadFeatures(
            f"the dataset has (feature set, interval, horizon) {given}, "
            f"{predictor.name} {predictor.version} was trained on {trained}"
        )


def report_on(predictor: Predictor, dataset: Dataset, rows: NDArray[np.int64]) -> dict[str, Any]:
    """The report on the given rows, which must lie after the training and calibration parts."""
    rows = np.sort(rows)
    history = windows.gather(dataset.values, dataset.first, rows, predictor.window)
    forecasts = {}
    for model_type in predictor.model_types:
        answer = predictor.predict(history, model_type)
        forecasts[model_type] = report.TestForecast(
            answer.mean, answer.lower, answer.upper, answer.probability_up
        )
    tested = report.TestRows(
        target=dataset.target[rows],
        returns=dataset.returns[rows],
        ewma_sd=ewma_sd(dataset.returns, dataset.first)[rows],
        ts=dataset.ts[rows],
        symbol=dataset.symbol[rows],
        drift=float(predictor.manifest["mean_return"]),
        horizon=dataset.horizon,
    )
    return report.build(tested, forecasts, predictor.coverage)
