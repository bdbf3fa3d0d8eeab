"""Every served prediction that names a symbol, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime

import asyncpg

from cluster.errors import InputError
from cluster.market.intervals import Interval
from cluster.storage.database import Database


@dataclass(frozen=True)
class Prediction:
    """A prediction as it was served; mean, lower, upper: log return from `last_close` over `horizon` bars."""

    symbol: str
    interval: str
    as_of: datetime
    """Open of the last bar the model saw."""
    horizon: int
    target_ts: datetime
    """Open of the bar that is predicted."""
    model_name: str
    model_version: str
    model_type: str
    mean: float
    lower: float
    upper: float
    coverage: float
    probability_up: float
    last_close: float


@dataclass(frozen=True)
class StoredPrediction(Prediction):
    """A prediction with its id, when it was made, and the log return that came (None: not known yet)."""

    id: int
    created_at: datetime
    outcome: float | None
    outcome_at: datetime | None


_GIVEN = tuple(field.name for field in fields(Prediction))
_STORED = ", ".join(field.name for field in fields(StoredPrediction))
_RECORD = f"""
INSERT INTO predictions ({", ".join(_GIVEN)})
VALUES ({", ".join(f"${place}" for place in range(1, len(_GIVEN) + 1))})
"""  # noqa: S608 (column names of our own)
_LATEST = f"""
SELECT {_STORED} FROM predictions
WHERE symbol = $1 AND interval = $2 AND ($3::text IS NULL OR model_type = $3)
ORDER BY as_of DESC, id DESC LIMIT $4
"""  # noqa: S608
_WAITING = f"""
SELECT {_STORED} FROM predictions
WHERE outcome IS NULL AND target_ts <= $1 ORDER BY target_ts, id LIMIT $2
"""  # noqa: S608
_SETTLE = "UPDATE predictions SET outcome = $2, outcome_at = now() WHERE id = $1 AND outcome IS NULL"


async def record(database: Database, predictions: Sequence[Prediction]) -> None:
    """Store served predictions, all of them or none; impossible values are an `InputError`."""
    rows = [tuple(getattr(prediction, name) for name in _GIVEN) for prediction in predictions]
    try:
        async with database.transaction() as connection:
            await connection.executemany(_RECORD, rows)
    except asyncpg.CheckViolationError as error:
        raise InputError(f"a prediction breaks {error.constraint_name}: {error.detail}") from error


async def latest(
    database: Database, symbol: str, interval: Interval, *, model_type: str | None = None, limit: int = 1
) -> list[StoredPrediction]:
    """The last predictions for a symbol, newest first."""
    async with database.connection() as connection:
        rows = await connection.fetch(_LATEST, symbol, interval, model_type, limit)
    return [StoredPrediction(**dict(row)) for row in rows]


async def waiting(database: Database, until: datetime, limit: int = 10_000) -> list[StoredPrediction]:
    """Predictions without an outcome whose bar has opened by `until`, the oldest first."""
    async with database.connection() as connection:
        rows = await connection.fetch(_WAITING, until, limit)
    return [StoredPrediction(**dict(row)) for row in rows]


async def settle(database: Database, outcomes: Sequence[tuple[int, float]]) -> None:
    """Fill in (id, log return that came); an outcome that is known already stays."""
    async with database.transaction() as connection:
        await connection.executemany(_SETTLE, sorted(outcomes))
