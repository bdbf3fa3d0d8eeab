"""A predictor's report on rows that it was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.errors import BadFeatures, NotEnoughHistory
from training.datasets import windows
from training.datasets.assemble import Dataset
from training.evaluation import report
from training.evaluation.baselines import ewma_sd
from training.predictor import Predictor


def evaluate(predictor: Predictor, dataset: Dataset) -> dict[str, Any]:
    """The report (see `training.evaluation.report.build`) from the start of the model's test part on.

    Bars that came after the training are part of it. BadFeatures when the dataset has other features,
    NotEnoughHistory when it has no row in that time.
    """
    digest = predictor.manifest["features"]["digest"]
    if dataset.digest != digest:
        raise BadFeatures(f"the dataset has feature set {dataset.digest}, the model was trained on {digest}")
    start = np.datetime64(predictor.manifest["test_range"]["start"].rstrip("Z"))
    rows = dataset.rows[dataset.ts[dataset.rows] >= start]
    if len(rows) < 2:
        raise NotEnoughHistory(f"no two rows since {start}, where the test part of {predictor.name} begins")
    return report_on(predictor, dataset, rows)


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
