"""A model's card on the test part: every model type beside the naive baselines, with a significance test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation import metrics
from training.evaluation.baselines import NORMAL_95, point_forecasts
from training.evaluation.dm import dm, mean_by_time

Doubles = NDArray[np.float64]

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class TestRows:
    """The test part row by row (N,): the next return, the bar's own, its EWMA sd, when, which symbol."""

    __test__ = False  # not a test class

    target: Doubles
    returns: Doubles
    ewma_sd: Doubles
    ts: NDArray[np.datetime64]
    symbol: NDArray[np.int64]
    drift: float
    horizon: int


@dataclass(frozen=True)
class TestForecast:
    """One model type's forecasts of the test rows, all (N,)."""

    __test__ = False  # not a test class

    mean: Doubles
    lower: Doubles
    upper: Doubles
    probability_up: Doubles


def build(rows: TestRows, forecasts: Mapping[str, TestForecast], level: float) -> dict[str, Any]:
    """The report as JSON values: `models`, `baselines`, `against_zero` (Diebold-Mariano) and a `verdict`."""
    points = point_forecasts(rows.returns, rows.drift)
    margin = NORMAL_95 * rows.ewma_sd
    zero_loss = rows.target**2
    tests = {
        name: dm(mean_by_time(zero_loss - (rows.target - one.mean) ** 2, rows.ts), rows.horizon)
        for name, one in forecasts.items()
    }
    return {
        "rows": len(rows.target),
        "symbols": len(np.unique(rows.symbol)),
        "start": f"{rows.ts.min()}Z",
        "end": f"{rows.ts.max()}Z",
        "coverage_level": level,
        "models": {name: _model_scores(rows.target, one, level) for name, one in forecasts.items()},
        "baselines": {name: _point_scores(rows.target, forecast) for name, forecast in points.items()},
        "ewma_interval": _interval_scores(rows.target, -margin, margin, 0.90),
        "against_zero": {name: {"t": test.t, "p": test.p} for name, test in tests.items()},
        "verdict": _verdict(tests["ensemble"].t, tests["ensemble"].p),
    }


def as_text(report: Mapping[str, Any]) -> str:
    """The report as a table for people."""
    lines = [
        f"{'':14}{'MAE':>9}{'RMSE':>9}{'IC':>8}{'dir.':>7}{'R2/zero':>9}{'cover':>7}{'Winkler':>9}{'DM t':>7}"
    ]
    for group in ("models", "baselines"):
        for name, scores in report[group].items():
            t = report["against_zero"].get(name, {}).get("t") if group == "models" else None
            lines.append(_line(name, scores, t))
    lines.append(_line("ewma interval", report["ewma_interval"], None))
    lines.append(f"{report['rows']} test rows, {report['start']} to {report['end']}. {report['verdict']}")
    return "\n".join(lines)


def _point_scores(target: Doubles, forecast: Doubles) -> dict[str, float | None]:
    scores = {
        "mae": metrics.mae(target, forecast),
        "rmse": metrics.rmse(target, forecast),
        "ic": metrics.ic(target, forecast),
        "rank_ic": metrics.rank_ic(target, forecast),
        "direction": metrics.direction(target, forecast),
        "r2_against_zero": metrics.r2_against_zero(target, forecast),
    }
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def _interval_scores(
    target: Doubles, lower: Doubles, upper: Doubles, level: float
) -> dict[str, float | None]:
    return {
        "coverage": metrics.coverage(target, lower, upper),
        "winkler": metrics.winkler(target, lower, upper, level),
    }


def _model_scores(target: Doubles, one: TestForecast, level: float) -> dict[str, float | None]:
    scores = _point_scores(target, one.mean) | _interval_scores(target, one.lower, one.upper, level)
    return scores | {"brier": metrics.brier(target, one.probability_up)}


def _verdict(t: float, p: float) -> str:
    facts = f"(Diebold-Mariano t = {t:.2f}, p = {p:.2f})"
    if p >= SIGNIFICANT:
        return f"The ensemble's mean does not differ significantly from forecasting zero {facts}."
    word = "beats" if t > 0 else "is worse than"
    return f"The ensemble's mean {word} forecasting zero {facts}."


def _line(name: str, scores: Mapping[str, float | None], t: float | None) -> str:
    cells = [
        (scores.get("mae"), 9, 5),
        (scores.get("rmse"), 9, 5),
        (scores.get("ic"), 8, 3),
        (scores.get("direction"), 7, 3),
        (scores.get("r2_against_zero"), 9, 4),
        (scores.get("coverage"), 7, 3),
        (scores.get("winkler"), 9, 4),
        (t, 7, 2),
    ]
    return f"{name:14}" + "".join(f"{'-':>{w}}" if v is None else f"{v:{w}.{d}f}" for v, w, d in cells)
