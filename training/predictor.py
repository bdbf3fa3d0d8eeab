"""The served model: feature rows in, calibrated forecasts of the next bar's log return out.

Needs ONNX Runtime and XGBoost, each on one thread; neither torch nor MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from cluster.errors import BadFeatures, BundleRejected, InputError
from training import bundle
from training.calibration import Conformal
from training.datasets.scaling import Scaler
from training.datasets.windows import fit_window, observed_rows
from training.mixture import ENSEMBLE, Mixture
from training.models.members import KINDS, serve_members
from training.models.volatility import Volatility

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

GOLDEN_TOLERANCE = 1e-6
"""Largest difference (log return) between a stored and a recomputed forecast that is taken as equal."""


@dataclass(frozen=True)
class Forecast:
    """Log return of the next bar: all (N,). `members` has the mean of every member that took part.

    `lower`..`upper` covers the return at the predictor's `coverage`; `probability_up` = P(return > 0).
    """

    mean: Doubles
    lower: Doubles
    upper: Doubles
    members: Mapping[str, Doubles]
    probability_up: Doubles


class Predictor:
    """One version of a model. Thread-safe; every call is answered from its arguments alone."""

    def __init__(
        self, mixture: Mixture, conformal: Conformal, manifest: Mapping[str, Any], name: str, version: str
    ) -> None:
        self._mixture = mixture
        self._conformal = conformal
        self.manifest = manifest
        self.name = name
        self.version = version
        self.feature_names: tuple[str, ...] = tuple(manifest["features"]["names"])
        self.window = int(manifest["window"])
        self.horizon = int(manifest["horizon"])
        self.interval = str(manifest["interval"])
        self.coverage = conformal.coverage
        self.metrics: dict[str, float] = dict(manifest["metrics"])
        self.model_types = mixture.model_types

    def predict(self, history: Floats, model_type: str = ENSEMBLE) -> Forecast:
        """Forecast from raw feature rows (N, L, F), or (L, F) for one, oldest first, L >= 1.

        The newest `window` rows count. NaN is an unknown value, an all-NaN row an absent one (histories of
        different lengths get NaN rows in front); the newest row must not be absent.
        BadFeatures when the shape or content is wrong, InputError for an unknown model type.
        """
        if model_type not in self.model_types:
            raise InputError(
                f"model_type {model_type!r} is unknown: expected one of {', '.join(self.model_types)}"
            )
        windows = fit_window(self._checked(history), self.window)
        outputs = self._mixture.outputs(windows, [model_type])
        lengths = observed_rows(windows)
        mean = outputs.z[model_type] * outputs.scale
        margin = self._conformal.half_width(model_type, lengths) * outputs.scale
        return Forecast(
            mean=mean,
            lower=mean - margin,
            upper=mean + margin,
            members={name: z * outputs.scale for name, z in outputs.z.items() if name != ENSEMBLE},
            probability_up=self._conformal.probability_up(model_type, lengths, outputs.z[model_type]),
        )

    def _checked(self, history: Floats) -> Floats:
        rows = np.asarray(history, dtype=np.float32)
        rows = rows[None] if rows.ndim == 2 else rows
        width = len(self.feature_names)
        if rows.ndim != 3 or rows.shape[1] < 1 or rows.shape[2] != width:
            raise BadFeatures(
                f"features of shape {np.shape(history)}, not (rows, {width}) or (samples, rows, {width}) "
                f"with 1 row or more, features {self.feature_names[0]} to {self.feature_names[-1]}"
            )
        if np.isinf(rows).any():
            raise BadFeatures(
                "features contain infinity: expected finite numbers, or NaN for an unknown value"
            )
        if not np.isfinite(rows[:, -1]).any(axis=1).all():
            raise BadFeatures("the newest feature row has no known value; it must hold at least one number")
        return rows


def load(
    directory: Path, *, name: str | None = None, version: str | None = None, feature_digest: str | None = None
) -> Predictor:
    """Verify and load a bundle directory. BundleRejected when anything is not what the manifest says.

    `feature_digest` is the feature set that will be fed; by default the one that this program computes.
    """
    if feature_digest is None:
        from training.features import DIGEST

        feature_digest = DIGEST
    files, manifest = bundle.read(directory, feature_digest)
    predictor = from_files(files, manifest, name or directory.name, version or bundle.fingerprint(manifest))
    _check_golden(predictor, files["golden.safetensors"])
    return predictor


def from_files(files: Mapping[str, bytes], manifest: Mapping[str, Any], name: str, version: str) -> Predictor:
    """The predictor of verified file contents; BundleRejected when one of them cannot be parsed or used."""
    try:
        state = json.loads(files["ensemble_optimized.json"])
        mixture = Mixture(
            scaler=Scaler.from_dict(json.loads(files["scaler.json"])),
            volatility=Volatility.from_dict(state["volatility"]),
            members=serve_members(files),
            weights={kind: float(state["weights"][kind]) for kind in KINDS},
        )
        predictor = Predictor(mixture, Conformal.from_dict(state["conformal"]), manifest, name, version)
    except Exception as error:  # parsers of three libraries, each with errors of its own
        raise BundleRejected(f"model {name}: a file cannot be used: {error}") from error
    return predictor


def golden(predictor: Predictor, windows: Floats) -> bytes:
    """Raw windows (G, window, F) and their forecasts as safetensors, to be checked at each load."""
    arrays: dict[str, NDArray[Any]] = {"windows": windows}
    for model_type in predictor.model_types:
        forecast = predictor.predict(windows, model_type)
        arrays[model_type] = np.stack([forecast.mean, forecast.lower, forecast.upper])
    return safetensors.numpy.save(arrays)


def _check_golden(predictor: Predictor, stored: bytes) -> None:
    try:
        gaps = _golden_gaps(predictor, safetensors.numpy.load(stored))
    except Exception as error:  # stored windows of another shape, or a graph that cannot run them
        raise BundleRejected(
            f"model {predictor.name}: stored forecasts cannot be checked: {error}"
        ) from error
    for model_type, gap in gaps.items():
        if not gap <= GOLDEN_TOLERANCE:
            raise BundleRejected(
                f"model {predictor.name}: {model_type} differs by {gap:.1e} from its stored forecasts "
                f"(limit {GOLDEN_TOLERANCE}); the libraries or this machine compute something else"
            )


def _golden_gaps(predictor: Predictor, arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Largest difference by model type between stored forecasts and those of now."""
    gaps = {}
    for model_type in predictor.model_types:
        forecast = predictor.predict(arrays["windows"], model_type)
        now = np.stack([forecast.mean, forecast.lower, forecast.upper])
        gaps[model_type] = float(np.abs(now - arrays[model_type]).max())
    return gaps
