"""From a dataset to a bundle: split, fit, weigh, calibrate, test.

The tasks of all folds and the final fits do not depend on each other, so `map_tasks` may run them side by
side (`training.parallel` does so on Ray).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.errors import NotEnoughHistory
from training import bundle, ensemble, predictor
from training.calibration import Conformal, bucket_bounds, calibrate
from training.config import TrainConfig
from training.datasets import scaling, splits, windows
from training.datasets.assemble import Dataset
from training.datasets.splits import Fold, Split
from training.datasets.targets import standardise
from training.evaluate import report_on
from training.mixture import Mixture
from training.models import volatility
from training.models.members import KINDS, FittedMember, MemberTask, fit_member, serve_members

Rows = NDArray[np.int64]
Progress = Callable[[str, float], None]
"""Called with what was just finished and the share of the whole that is done (0..1)."""


class MapTasks(Protocol):
    """Runs `function(dataset, task)` for every task; yields (task number, result) in any order."""

    def __call__(
        self,
        function: Callable[[Dataset, MemberTask], FittedMember],
        dataset: Dataset,
        tasks: Sequence[MemberTask],
    ) -> Iterable[tuple[int, FittedMember]]:
        """See the class."""
        ...


@dataclass(frozen=True)
class Bundle:
    """A trained model in memory: file contents, manifest, and the report of the test part."""

    files: Mapping[str, bytes]
    manifest: Mapping[str, Any]
    report: Mapping[str, Any]


def serially(
    function: Callable[[Dataset, MemberTask], FittedMember], dataset: Dataset, tasks: Sequence[MemberTask]
) -> Iterable[tuple[int, FittedMember]]:
    """`MapTasks` in this process, one task after the other."""
    for number, task in enumerate(tasks):
        yield number, function(dataset, task)


def quietly(_what: str, _share: float) -> None:
    """`Progress` that says nothing."""


def fit(
    dataset: Dataset,
    config: TrainConfig,
    *,
    progress: Progress = quietly,
    map_tasks: MapTasks = serially,
) -> Bundle:
    """Train on `dataset`. The same dataset, configuration and library versions give the same bytes.

    NotEnoughHistory when a part of the split would be empty, NotReady when too few rows calibrate it.
    """
    settings = config.split
    split = splits.chronological(
        dataset.spans, dataset.rows, settings.train, settings.calibration, settings.embargo
    )
    folds = splits.forward_folds(dataset.spans, split.train, settings.folds, settings.embargo)
    _check_sizes(split, folds)
    final = _tasks(dataset, Fold(split.train, split.train[:0]), config)
    held_out = [task for fold in folds for task in _tasks(dataset, fold, config)]
    tasks = [*final, *reversed(held_out)]  # the longest first, so that workers end together
    fitted = dict(_with_progress(map_tasks(fit_member, dataset, tasks), tasks, progress))
    files = {name: content for k in range(len(final)) for name, content in fitted[k].files.items()}
    forecasts = _out_of_fold(
        dataset, folds, held_out, [fitted[k] for k in reversed(range(len(final), len(tasks)))]
    )
    weights = ensemble.greedy(forecasts, config.selection_rounds)
    mixture = Mixture(final[0].scaler, final[0].volatility, serve_members(files), weights)
    conformal = _calibrate(dataset, split.calibration, mixture, config)
    progress("calibrated", 0.93)
    return _bundle(dataset, config, split, files, mixture, conformal, progress)


def _check_sizes(split: Split, folds: Sequence[Fold]) -> None:
    parts = {"train": split.train, "calibration": split.calibration, "test": split.test}
    parts |= {
        f"fold {k + 1} {side}": getattr(f, side) for k, f in enumerate(folds) for side in ("train", "test")
    }
    empty = [name for name, rows in parts.items() if len(rows) < 2]
    if empty:
        raise NotEnoughHistory(
            f"too few bars: nothing is left for {', '.join(empty)} of the split; ingest more"
        )


def _tasks(dataset: Dataset, fold: Fold, config: TrainConfig) -> list[MemberTask]:
    scaler = scaling.fit(dataset.values[fold.train])
    scaled = scaler.transform(dataset.values[fold.train])
    scale_model = volatility.fit(scaled, dataset.target[fold.train], config.ridge)
    return [MemberTask(kind, fold.train, fold.test, scaler, scale_model, config) for kind in KINDS]


def _with_progress(
    results: Iterable[tuple[int, FittedMember]], tasks: Sequence[MemberTask], progress: Progress
) -> Iterable[tuple[int, FittedMember]]:
    progress("training", 0.0)
    for done, (number, result) in enumerate(results, start=1):
        progress(tasks[number].label, 0.9 * done / len(tasks))
        yield number, result


def _out_of_fold(
    dataset: Dataset, folds: Sequence[Fold], tasks: Sequence[MemberTask], fitted: Sequence[FittedMember]
) -> ensemble.OutOfFold:
    parts = []
    for number, fold in enumerate(folds):
        own = range(number * len(KINDS), (number + 1) * len(KINDS))
        task = tasks[own[0]]
        scale = task.volatility.scale(task.scaler.transform(dataset.values[fold.test]))
        members = {tasks[k].kind: fitted[k].z for k in own}
        parts.append(ensemble.FoldForecast(fold, standardise(dataset.target[fold.test], scale), members))
    return ensemble.OutOfFold(dataset.spans, parts)


def _calibrate(dataset: Dataset, rows: Rows, mixture: Mixture, config: TrainConfig) -> Conformal:
    """Every calibration row is forecast once a bucket, from a random history length of that bucket."""
    bounds = bucket_bounds(config.window)
    random = np.random.default_rng(config.seed)
    table: dict[str, list[Any]] = {name: [] for name in mixture.model_types}
    for shortest, longest in zip((1, *(bound + 1 for bound in bounds)), bounds, strict=False):
        lengths = random.integers(shortest, longest, size=len(rows), endpoint=True)
        history = windows.gather(dataset.values, dataset.first, rows, config.window, lengths)
        outputs = mixture.outputs(history, mixture.model_types)
        for name, z in outputs.z.items():
            table[name].append(calibrate(dataset.target[rows] / outputs.scale - z, config.coverage))
    return Conformal(config.coverage, bounds, {name: tuple(row) for name, row in table.items()})


def _bundle(
    dataset: Dataset,
    config: TrainConfig,
    split: Split,
    files: dict[str, bytes],
    mixture: Mixture,
    conformal: Conformal,
    progress: Progress,
) -> Bundle:
    state = {
        "weights": dict(mixture.weights),
        "volatility": mixture.volatility.as_dict(),
        "conformal": conformal.as_dict(),
    }
    facts = _facts(dataset, config, split)
    served = predictor.Predictor(mixture, conformal, facts, "unsaved", "0")
    card = report_on(served, dataset, split.test)
    progress("tested", 0.97)
    facts["metrics"] = _headline(card)
    golden_rows = split.test[np.linspace(0, len(split.test) - 1, config.golden_windows).astype(np.int64)]
    lengths = 1 + np.arange(len(golden_rows), dtype=np.int64) * 7 % config.window  # all histories, mixed
    history = windows.gather(dataset.values, dataset.first, golden_rows, config.window, lengths)
    files |= {
        "ensemble_optimized.json": bundle.json_bytes(state),
        "feature_names.json": bundle.json_bytes(list(dataset.names)),
        "scaler.json": bundle.json_bytes(mixture.scaler.as_dict()),
        "report.json": bundle.json_bytes(card),
        "golden.safetensors": predictor.golden(served, history),
    }
    progress("bundled", 1.0)
    return Bundle(files, bundle.manifest_of(files, facts), card)


def _facts(dataset: Dataset, config: TrainConfig, split: Split) -> dict[str, Any]:
    def moments(rows: Rows) -> dict[str, Any]:
        times = dataset.ts[rows]
        return {"start": f"{times.min()}Z", "end": f"{times.max()}Z", "rows": len(rows)}

    return {
        "features": {"digest": dataset.digest, "names": list(dataset.names)},
        "window": config.window,
        "horizon": dataset.horizon,
        "interval": dataset.interval,
        "coverage": config.coverage,
        "seed": config.seed,
        "symbols": list(dataset.symbols),
        "training_range": moments(split.train),
        "calibration_range": moments(split.calibration),
        "test_range": moments(split.test),
        "mean_return": float(dataset.target[split.train].mean()),
        "config": json.loads(config.model_dump_json()),
        "metrics": {},
    }


def _headline(card: Mapping[str, Any]) -> dict[str, float]:
    """The ensemble's test scores, flat, as the registry and the manifest show them."""
    scores = {name: value for name, value in card["models"]["ensemble"].items() if value is not None}
    return scores | {
        "dm_t_against_zero": card["against_zero"]["ensemble"]["t"],
        "dm_p_against_zero": card["against_zero"]["ensemble"]["p"],
    }
