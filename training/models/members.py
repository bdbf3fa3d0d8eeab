"""Fitting one ensemble member as a task that can run in any process, and loading it to serve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.datasets.assemble import Dataset
from training.datasets.scaling import Scaler
from training.datasets.targets import standardise
from training.models.volatility import Volatility

Rows = NDArray[np.int64]
Doubles = NDArray[np.float64]

KINDS = ("xgboost", "lstm", "transformer")
"""The members of the ensemble, in the order in which they are reported."""


class Member(Protocol):
    """A trained member, ready to serve."""

    def predict(self, windows: NDArray[np.float32]) -> Doubles:
        """Standardised return (N,) of scaled windows (N, window, F), NaN = unknown."""
        ...


@dataclass(frozen=True)
class MemberTask:
    """Fit `kind` on the rows `train`, then forecast the rows `test`; without any, export files to serve."""

    kind: str
    train: Rows
    test: Rows
    scaler: Scaler
    volatility: Volatility
    config: TrainConfig

    @property
    def label(self) -> str:
        """What this task is called in progress output."""
        return f"{self.kind} ({'out of fold' if len(self.test) else 'final'}, {len(self.train)} rows)"


@dataclass(frozen=True)
class FittedMember:
    """`files` to serve from (final fit), or standardised returns `z` of the test rows (out-of-fold fit)."""

    files: Mapping[str, bytes]
    z: Doubles


def fit_member(dataset: Dataset, task: MemberTask) -> FittedMember:
    """Run one task; depends on nothing but its arguments, and is deterministic."""
    scaled = task.scaler.transform(dataset.values)
    scale = task.volatility.scale(scaled[task.train])
    z = standardise(dataset.target[task.train], scale)
    if task.kind == "xgboost":
        return _fit_trees(scaled, z, task)
    return _fit_network(dataset, scaled, z, task)


def _fit_trees(scaled: NDArray[np.float32], z: Doubles, task: MemberTask) -> FittedMember:
    from training.models import gradient_boosting

    config = task.config
    ubj = gradient_boosting.fit(
        scaled[task.train], z, config.xgboost, seed=config.seed, threads=config.threads
    )
    member = gradient_boosting.XgboostMember(ubj)
    return FittedMember({"xgboost_optimized.ubj": ubj}, member.predict(scaled[task.test, None]))


def _fit_network(dataset: Dataset, scaled: NDArray[np.float32], z: Doubles, task: MemberTask) -> FittedMember:
    from training.models import export, fitting, networks  # torch is needed to train, never to serve

    config = task.config
    description = networks.architecture(task.kind, scaled.shape[1], config)
    with fitting.one_process_threads(config.threads):
        source = fitting.WindowSource(scaled, dataset.first, config.window, config.fitting.device)
        network = fitting.train(description, source, task.train, z, config.fitting, seed=config.seed)
        if len(task.test):
            return FittedMember({}, fitting.predict(network, source, task.test))
        name = f"{task.kind}_optimized"
        files = {
            f"{name}.safetensors": networks.weights(network),
            f"{name}_config.json": json.dumps(description, indent=1, sort_keys=True).encode(),
            f"{name}.onnx": export.to_onnx(network, config.window, scaled.shape[1] + 1),
        }
    return FittedMember(files, np.zeros(0))


def serve_members(files: Mapping[str, bytes]) -> dict[str, Member]:
    """The members of a bundle's files, by kind; torch is not imported."""
    from training.models.gradient_boosting import XgboostMember
    from training.models.onnx_member import OnnxMember

    return {
        "xgboost": XgboostMember(files["xgboost_optimized.ubj"]),
        "lstm": OnnxMember(files["lstm_optimized.onnx"]),
        "transformer": OnnxMember(files["transformer_optimized.onnx"]),
    }
