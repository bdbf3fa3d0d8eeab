"""POST /predict."""

from __future__ import annotations

import time
from collections.abc import Sized
from datetime import datetime
from typing import TypeVar

import pyarrow as pa
from fastapi import APIRouter, Request
from starlette.responses import Response

from cluster import metrics
from cluster.errors import InputError
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.storage import bars as stored_bars
from cluster.storage import predictions
from cluster.storage.database import Database
from serve_apps import body, prediction, problems
from serve_apps.prediction import Origin, Point
from serve_apps.schemas import Prediction, PredictRequest
from serve_apps.services import Services
from training.predictor import Predictor

_Value = TypeVar("_Value")


class PredictRoutes:
    """Forecasts from feature rows, from the caller's bars, or from the stored bars of a symbol."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def router(self) -> APIRouter:
        """The one route; its body is read by `serve_apps.body`, so FastAPI only documents it."""
        router = APIRouter(tags=["predictions"])
        router.add_api_route(
            "/predict",
            self.predict,
            methods=["POST"],
            summary="Forecast the next bar",
            response_model=Prediction,
            responses=problems.documented(408, 409, 413, 415, 422, 503),
            openapi_extra=body.documented(PredictRequest),
        )
        return router

    async def predict(self, request: Request) -> Response:
        """Mean and prediction interval of the log-return of the next bar.

        The body holds exactly one of `features`, `symbol` and `bars`. A forecast of a symbol is stored.
        """
        asked = await body.read(request, PredictRequest, self._services.settings.max_body_bytes)
        predictor = self._services.slot.require()
        _require_interval(predictor, asked.interval)
        started = time.perf_counter()
        if asked.features is not None:
            self._require_few(asked.features, "#/features")
            found = await self._services.compute(_from_features, predictor, asked)
        elif asked.bars is not None:
            self._require_few(asked.bars, "#/bars")
            found = await self._services.compute(_from_own_bars, predictor, asked, self._services.clock.now())
        else:
            found = await self._from_symbol(predictor, asked)
        metrics.prediction_latency_seconds.labels(asked.model_type).observe(time.perf_counter() - started)
        metrics.predictions_total.labels(asked.model_type).inc()
        return Response(found.model_dump_json(exclude_none=True), media_type="application/json")

    def _require_few(self, given: Sized, pointer: str) -> None:
        most = self._services.settings.max_data_points
        if len(given) > most:
            raise InputError(
                f"{len(given)} rows given: expected at most {most} (setting MAX_DATA_POINTS)", pointer
            )

    async def _from_symbol(self, predictor: Predictor, asked: PredictRequest) -> Prediction:
        symbol = _given(asked.symbol)
        database = await self._services.database()
        instrument = await self._services.instrument(symbol)
        needed = prediction.bars_needed(predictor.window)
        final = await _final_bars(database, symbol, Interval(predictor.interval), needed)
        point, start = await self._services.compute(_from_stored_bars, predictor, asked, final, instrument)
        await _store(database, predictor, asked, start, point)
        return prediction.answer(predictor, point, asked, start)


def _given(value: _Value | None) -> _Value:
    # The schema lets exactly one input through, and the caller has looked which.
    assert value is not None  # noqa: S101
    return value


def _require_interval(predictor: Predictor, interval: Interval | None) -> None:
    if interval not in (None, predictor.interval):
        raise InputError(
            f"interval {interval}: model {predictor.name} forecasts {predictor.interval} bars only",
            "#/interval",
        )


async def _final_bars(database: Database, symbol: str, interval: Interval, count: int) -> pa.Table:
    # One more, because the newest bar may still be open, and is then left out.
    newest = await stored_bars.read(database, symbol, interval, limit=count + 1, newest=True)
    return newest.filter(newest["is_final"])


def _from_features(predictor: Predictor, asked: PredictRequest) -> Prediction:
    assert asked.features is not None  # noqa: S101 - the caller has looked
    history = prediction.feature_rows(asked.features, predictor.feature_names)
    return prediction.answer(
        predictor, prediction.forecast(predictor, history, asked.model_type), asked, None
    )


def _from_own_bars(predictor: Predictor, asked: PredictRequest, now: datetime) -> Prediction:
    bars = prediction.bars_table(_given(asked.bars), Interval(predictor.interval), now)
    point = _point_of_bars(predictor, bars, asked.model_type, "Send more bars.")
    start = prediction.origin(bars, None, asked.calendar, predictor)
    return prediction.answer(predictor, point, asked, start)


def _from_stored_bars(
    predictor: Predictor, asked: PredictRequest, bars: pa.Table, instrument: Instrument
) -> tuple[Point, Origin]:
    remedy = f"`finsight backfill {instrument.symbol} --interval {predictor.interval}` fetches them."
    point = _point_of_bars(predictor, bars, asked.model_type, remedy)
    return point, prediction.origin(bars, instrument.symbol, instrument.calendar, predictor)


def _point_of_bars(predictor: Predictor, bars: pa.Table, model_type: str, remedy: str) -> Point:
    history = prediction.window_rows(bars, predictor.window, remedy)
    return prediction.forecast(predictor, history, model_type)


async def _store(
    database: Database, predictor: Predictor, asked: PredictRequest, start: Origin, point: Point
) -> None:
    if start.target_ts is None:
        return  # the calendar ends here: there is no bar that the forecast could be compared with
    served = predictions.Prediction(
        symbol=_given(start.symbol),
        interval=predictor.interval,
        as_of=start.as_of,
        horizon=predictor.horizon,
        target_ts=start.target_ts,
        model_name=predictor.name,
        model_version=predictor.version,
        model_type=asked.model_type,
        mean=point.mean,
        lower=point.lower,
        upper=point.upper,
        coverage=predictor.coverage,
        probability_up=point.probability_up,
        last_close=start.last_close,
    )
    await predictions.record(database, [served])
