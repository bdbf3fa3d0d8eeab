"""From a validated request to the answer: feature rows, one forecast, prices. No I/O, no FastAPI, no Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.errors import BadBars, BadFeatures, NotEnoughHistory
from cluster.market import bars as market_bars
from cluster.market import calendars
from cluster.market.instants import Instants, to_instant, to_moment
from cluster.market.intervals import Interval
from serve_apps.problems import shortened
from serve_apps.schemas import Bar, NamedRow, Prediction, PredictRequest, PriceRange, Row, ServedModel
from training.features import MIN_BARS, compute
from training.predictor import Predictor

Floats = NDArray[np.float32]
FeatureInput: TypeAlias = "Row | list[Row] | NamedRow | list[NamedRow]"

_MONTH = timedelta(days=31)  # longer than any closure of an exchange


@dataclass(frozen=True)
class Origin:
    """Where a forecast starts: the last bar that was used."""

    symbol: str | None
    as_of: datetime
    target_ts: datetime | None
    """Open of the bar that is forecast; `None` when its calendar is not known."""
    last_close: float


@dataclass(frozen=True)
class Point:
    """One forecast: log returns, and P(return > 0)."""

    mean: float
    lower: float
    upper: float
    probability_up: float
    members: dict[str, float]
    rows_used: int


def bars_needed(window: int) -> int:
    """Bars that fill a whole window: each of its rows has `MIN_BARS` bars behind it."""
    return MIN_BARS + window - 1


def feature_rows(features: FeatureInput, names: Sequence[str]) -> Floats:
    """Features of a request as (L, F) in the model's order; null becomes NaN.

    Raises `BadFeatures` that tells count and names when they are not the model's.
    """
    if not (isinstance(features, list) and isinstance(features[0], list | dict)):
        return np.array([_ordered(features, names, "#/features")], dtype=np.float32)
    ordered = [_ordered(row, names, f"#/features/{number}") for number, row in enumerate(features)]
    return np.array(ordered, dtype=np.float32)


def _ordered(row: Any, names: Sequence[str], pointer: str) -> Sequence[float | None]:
    if isinstance(row, Mapping):
        unknown = sorted(set(row) - set(names))
        if unknown or not row:
            given = ", ".join(shortened(name) for name in unknown[:5]) or "(none at all)"
            expected = f"expected some of the {len(names)} features {', '.join(names)}"
            raise BadFeatures(f"{pointer} has unknown names {given}: {expected}", pointer)
        return [row.get(name) for name in names]
    if len(row) != len(names):
        expected = f"expected {len(names)} in this order: {', '.join(names)}"
        raise BadFeatures(f"{pointer} has {len(row)} values: {expected}", pointer)
    values: Sequence[float | None] = row
    return values


def bars_table(bars: Sequence[Bar], interval: Interval, now: datetime) -> pa.Table:
    """Bars of a request as the one Arrow schema; raises `BadBars` that says which bar breaks which rule."""
    ts = [bar.ts for bar in bars]
    early = next((i for i in range(1, len(ts)) if ts[i] <= ts[i - 1]), None)
    if early is not None:
        raise BadBars(
            f"bars must be oldest first, each once; bar {early} is not later than the one before it",
            f"#/bars/{early}/ts",
        )
    open_, high, low, close, volume = (
        np.array([getattr(bar, name) for bar in bars], dtype=np.float64) for name in _COLUMNS
    )
    instants = np.array([to_instant(moment) for moment in ts], dtype="datetime64[us]")
    table = market_bars.from_columns(
        "REQUEST", interval, instants, open_, high, low, close, volume, source="request"
    )
    checked = market_bars.validate(table, now)
    if checked.rejected.num_rows:
        first = checked.rejected.slice(0, 1).to_pylist()[0]
        raise BadBars(
            f"{checked.rejected.num_rows} of {len(bars)} bars are not valid; "
            f"the first, at {first['ts'].isoformat()}: {first['reason']}",
            f"#/bars/{ts.index(first['ts'])}",
        )
    return checked.good


_COLUMNS = (*market_bars.PRICES, "volume")


def window_rows(bars: pa.Table, window: int, remedy: str) -> Floats:
    """The newest feature rows (1..window, F) of `bars`, oldest first.

    Only rows with `MIN_BARS` bars behind them are used, so they equal those of a longer history. Without any
    it raises `NotEnoughHistory`, whose text ends with `remedy`.
    """
    if bars.num_rows < MIN_BARS:
        raise NotEnoughHistory(f"The features need {MIN_BARS} bars, there are {bars.num_rows}. {remedy}")
    newest = bars.slice(max(0, bars.num_rows - bars_needed(window)))
    rows: Floats = compute(newest).values[MIN_BARS - 1 :]
    return rows


def origin(bars: pa.Table, symbol: str | None, calendar: str | None, predictor: Predictor) -> Origin:
    """Where the forecast of `bars` (at least one) starts, and the open of the bar that it is about."""
    as_of = to_moment(market_bars.opens(bars)[-1])
    opens = None if calendar is None else next_opens(calendar, Interval(predictor.interval), as_of)
    target = (
        None if opens is None or len(opens) < predictor.horizon else to_moment(opens[predictor.horizon - 1])
    )
    return Origin(symbol, as_of, target, float(bars["close"][-1].as_py()))


def next_opens(calendar: str, interval: Interval, after: datetime) -> Instants:
    """Opens of the bars of the next month after `after`, fewer where the known calendar ends."""
    later = after + timedelta(seconds=1)
    return calendars.expected_opens(calendar, interval, later, later + _MONTH)


def forecast(predictor: Predictor, history: Floats, model_type: str) -> Point:
    """One forecast from feature rows (L, F); `InputError` for a member that the model lacks."""
    result = predictor.predict(history, model_type)
    return Point(
        mean=float(result.mean[0]),
        lower=float(result.lower[0]),
        upper=float(result.upper[0]),
        probability_up=float(result.probability_up[0]),
        members={name: float(column[0]) for name, column in result.members.items()},
        rows_used=min(len(history), predictor.window),
    )


def answer(predictor: Predictor, point: Point, request: PredictRequest, start: Origin | None) -> Prediction:
    """The body of the answer."""
    up = point.probability_up
    return Prediction(
        mean=point.mean,
        lower=point.lower,
        upper=point.upper,
        coverage=predictor.coverage,
        confidence=(up if point.mean >= 0 else 1 - up) if request.return_confidence else None,
        members=point.members,
        model_type=request.model_type,
        model=ServedModel(name=predictor.name, version=predictor.version),
        interval=Interval(predictor.interval),
        horizon=predictor.horizon,
        rows_used=point.rows_used,
        **({} if start is None else _prices(start, point)),
    )


def _prices(start: Origin, point: Point) -> dict[str, Any]:
    mean, lower, upper = (start.last_close * math.exp(r) for r in (point.mean, point.lower, point.upper))
    return {
        "symbol": start.symbol,
        "as_of": start.as_of,
        "target_ts": start.target_ts,
        "last_close": start.last_close,
        "price": PriceRange(mean=mean, lower=lower, upper=upper),
    }
