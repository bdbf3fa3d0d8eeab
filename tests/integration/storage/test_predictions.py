from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cluster.errors import InputError
from cluster.market.intervals import Interval
from cluster.storage import predictions
from cluster.storage.database import Database
from cluster.storage.predictions import Prediction

pytestmark = pytest.mark.postgres

FRIDAY = Prediction(
    symbol="SPX",
    interval="1d",
    as_of=datetime(2018, 12, 28, 14, 30, tzinfo=UTC),
    horizon=1,
    target_ts=datetime(2018, 12, 31, 14, 30, tzinfo=UTC),
    model_name="finsight-1d",
    model_version="3",
    model_type="ensemble",
    mean=0.001,
    lower=-0.02,
    upper=0.02,
    coverage=0.9,
    probability_up=0.53,
    last_close=2485.74,
)
MONDAY = replace(FRIDAY, as_of=FRIDAY.target_ts, target_ts=datetime(2019, 1, 2, 14, 30, tzinfo=UTC))


async def test_a_prediction_is_found_as_it_was_served(database: Database) -> None:
    await predictions.record(database, [FRIDAY])
    (found,) = await predictions.latest(database, "SPX", Interval.D1)
    assert replace(found, id=1, created_at=FRIDAY.as_of) == predictions.StoredPrediction(
        **vars(FRIDAY), id=1, created_at=FRIDAY.as_of, outcome=None, outcome_at=None
    )


async def test_the_latest_predictions_come_newest_first(database: Database) -> None:
    await predictions.record(database, [MONDAY, FRIDAY, replace(FRIDAY, symbol="IXIC")])
    found = await predictions.latest(database, "SPX", Interval.D1, limit=5)
    assert [prediction.as_of for prediction in found] == [MONDAY.as_of, FRIDAY.as_of]


async def test_members_and_ensemble_are_told_apart(database: Database) -> None:
    await predictions.record(database, [FRIDAY, replace(MONDAY, model_type="lstm")])
    (found,) = await predictions.latest(database, "SPX", Interval.D1, model_type="ensemble")
    assert found.as_of == FRIDAY.as_of


async def test_an_outcome_is_filled_in_once(database: Database) -> None:
    await predictions.record(database, [FRIDAY, MONDAY])
    (waiting,) = await predictions.waiting(database, FRIDAY.target_ts)
    assert waiting.as_of == FRIDAY.as_of
    await predictions.settle(database, [(waiting.id, 0.0085)])
    await predictions.settle(database, [(waiting.id, 0.5)])
    assert await predictions.waiting(database, FRIDAY.target_ts) == []
    found = await predictions.latest(database, "SPX", Interval.D1, limit=2)
    assert [prediction.outcome for prediction in found] == [None, 0.0085]


@pytest.mark.parametrize(
    "change",
    [
        {"mean": 0.03},  # above the interval
        {"mean": float("nan")},
        {"upper": float("inf")},
        {"coverage": 1.0},
        {"probability_up": 1.01},
        {"last_close": 0.0},
        {"target_ts": FRIDAY.as_of},
        {"horizon": 0},
    ],
    ids=lambda change: f"{change}",
)
async def test_an_impossible_prediction_is_refused_with_all_others(
    database: Database, change: dict[str, float]
) -> None:
    with pytest.raises(InputError, match="a prediction breaks"):
        await predictions.record(database, [MONDAY, replace(FRIDAY, **change)])  # type: ignore[arg-type]
    assert await predictions.latest(database, "SPX", Interval.D1) == []
