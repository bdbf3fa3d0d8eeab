"""Ensemble weights by greedy selection with replacement (Caruana et al. 2004) on out-of-fold forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.datasets.splits import Fold, Spans

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class FoldForecast:
    """What the members, trained on `fold.train`, said about `fold.test`: all (len(fold.test),)."""

    fold: Fold
    target: Doubles
    members: Mapping[str, Doubles]


class OutOfFold:
    """Forecasts of rows that lie after all that their model was trained on; in-sample ones cannot get in."""

    def __init__(self, spans: Spans, folds: Sequence[FoldForecast]) -> None:
        for part in folds:
            if spans.end[part.fold.train].max() >= spans.start[part.fold.test].min():
                raise ValueError("in-sample forecasts: a training label is known only after the test begins")
        self.target = np.concatenate([part.target for part in folds])
        self.members = {
            name: np.concatenate([part.members[name] for part in folds]) for name in folds[0].members
        }


def greedy(forecasts: OutOfFold, rounds: int = 100) -> dict[str, float]:
    """Weights (sum 1) of the average with the smallest squared error, built one pick at a time."""
    if not isinstance(forecasts, OutOfFold):
        raise TypeError(f"weights are fitted on OutOfFold forecasts, not on {type(forecasts).__name__}")
    names = list(forecasts.members)
    outputs = np.stack([forecasts.members[name] for name in names])  # (members, rows)
    picks = np.zeros(len(names))
    total = np.zeros(outputs.shape[1])
    for made in range(rounds):
        errors = ((total + outputs) / (made + 1) - forecasts.target) ** 2
        best = int(errors.mean(axis=1).argmin())
        picks[best] += 1
        total = total + outputs[best]
    return {name: float(count / rounds) for name, count in zip(names, picks, strict=True)}
