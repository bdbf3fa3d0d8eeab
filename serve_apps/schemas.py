"""Request and response bodies. Prices are in quote currency, times in UTC, returns are natural logarithms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from cluster.errors import InputError
from cluster.market.intervals import Interval
from cluster.market.symbols import MAX_SYMBOL_LENGTH, Tier, parse_symbol

ModelType = Literal["ensemble", "xgboost", "lstm", "transformer"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_LONGEST_BACKFILL = timedelta(days=50 * 366)


def _canonical(text: str) -> str:
    try:
        return parse_symbol(text)
    except InputError as error:
        raise ValueError(str(error)) from None


SymbolName = Annotated[
    str,
    Field(max_length=MAX_SYMBOL_LENGTH, description="Canonical symbol.", examples=["SPX"]),
    AfterValidator(_canonical),
]
Value = Annotated[
    float, Field(strict=True, allow_inf_nan=False, ge=-_FLOAT32_MAX, le=_FLOAT32_MAX, description="Finite.")
]
Amount = Annotated[float, Field(strict=True, allow_inf_nan=False)]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies before the year 1 or after the year 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]

_MOST_NAMES = 4096


def _few(names: Any) -> Any:
    if isinstance(names, dict) and len(names) > _MOST_NAMES:
        raise ValueError(f"{len(names)} names given, at most {_MOST_NAMES} are read")
    return names


# A list ends at its first error: describing each of a million takes seconds and gigabytes.
Row = Annotated[list[Value | None], Field(fail_fast=True)]
NamedRow = Annotated[dict[str, Value | None], BeforeValidator(_few)]


def _shape(features: Any) -> str:
    first = features[0] if isinstance(features, list) and features else None
    if isinstance(features, dict):
        return "[by name]"
    if isinstance(first, dict):
        return "[rows by name]"
    return "[rows]" if isinstance(first, list) else "[row]"


Features = Annotated[
    Annotated[Row, Tag("[row]"), Field(min_length=1)]
    | Annotated[list[Row], Tag("[rows]"), Field(min_length=1, fail_fast=True)]
    | Annotated[NamedRow, Tag("[by name]")]
    | Annotated[list[NamedRow], Tag("[rows by name]"), Field(min_length=1, fail_fast=True)],
    Discriminator(_shape),
]
"""One row of features or rows of history, oldest first; in the model's order, or by name. null = missing."""


class Request(BaseModel):
    """Base of every request body: unknown keys are refused, because they are misspelt ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Bar(Request):
    """One bar of the caller's own."""

    ts: Moment = Field(description="Bar OPEN.", examples=["2018-12-31T14:30:00Z"])
    open: Amount = Field(examples=[2498.94])
    high: Amount = Field(examples=[2509.24])
    low: Amount = Field(examples=[2482.82])
    close: Amount = Field(examples=[2506.85])
    volume: Amount | None = Field(None, description="null = unknown.", examples=[3442870000.0])


class PredictRequest(Request):
    """Exactly one of `features`, `symbol` and `bars`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"symbol": "SPX", "interval": "1d", "return_confidence": True}]}
    )

    features: Features | None = Field(
        None,
        description="One row of features, or rows of history, oldest first: a list in the order of the "
        "model's `feature_names`, or an object by name. null = missing.",
    )
    symbol: SymbolName | None = None
    bars: Annotated[list[Bar], Field(fail_fast=True, min_length=1)] | None = Field(
        None, description="At least 512 bars of one symbol, oldest first."
    )
    interval: Interval | None = Field(
        None, description="Length of the bars; the model's own when left out, and no other one is taken."
    )
    calendar: str | None = Field(
        None,
        max_length=16,
        description="Exchange calendar of `bars` (XNYS, 24/7, ...); without it `target_ts` is left out.",
    )
    model_type: ModelType = "ensemble"
    return_confidence: bool = Field(default=False, strict=True)

    @model_validator(mode="after")
    def _one_input(self) -> PredictRequest:
        given = [name for name in ("features", "symbol", "bars") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"expected exactly one of features, symbol, bars; given: {found}")
        return self


class ServedModel(BaseModel):
    """Which model answered."""

    name: str = Field(examples=["finsight-1d"])
    version: str = Field(examples=["3"])


class PriceRange(BaseModel):
    """A price and its prediction interval."""

    mean: float = Field(description="`last_close * exp(mean)`.", examples=[2508.1])
    lower: float = Field(examples=[2459.8])
    upper: float = Field(examples=[2557.4])


class Prediction(BaseModel):
    """Forecast of the log-return from the last bar's close to the close `horizon` bars later."""

    mean: float = Field(description="Log-return.", examples=[0.0005])
    lower: float = Field(description="Lower end of the prediction interval.", examples=[-0.019])
    upper: float = Field(description="Upper end of the prediction interval.", examples=[0.02])
    coverage: float = Field(
        description="Share of outcomes that the interval is built to hold.", examples=[0.9]
    )
    confidence: float | None = Field(
        None, description="Calibrated probability that the return has the sign of `mean`.", examples=[0.54]
    )
    members: dict[str, float] = Field(description="Log-return that each member forecasts.")
    model_type: ModelType
    model: ServedModel
    interval: Interval = Field(description="Length of the bars that the model was trained on.")
    horizon: int = Field(description="Bars ahead.", examples=[1])
    rows_used: int = Field(description="Rows of history that the model saw.", examples=[64])
    symbol: str | None = Field(None, examples=["SPX"])
    as_of: datetime | None = Field(None, description="Open of the last bar used.")
    target_ts: datetime | None = Field(None, description="Open of the bar that is forecast, by calendar.")
    last_close: float | None = Field(None, examples=[2506.85])
    price: PriceRange | None = None


class Signature(BaseModel):
    """What a model takes and gives."""

    feature_names: list[str] = Field(description="Order of the values in a row of `features`.")
    window: int = Field(description="Rows of history that count at most.", examples=[64])
    horizon: int = Field(description="Bars ahead.", examples=[1])
    interval: str = Field(examples=["1d"])
    coverage: float = Field(description="Of the prediction interval.", examples=[0.9])


class ModelVersion(BaseModel):
    """One version of a registered model."""

    version: str = Field(examples=["3"])
    aliases: list[str] = Field(examples=[["champion"]])
    created_at: datetime
    signature: Signature
    symbols: list[str] = Field(description="Trained on these.")
    training_range: dict[str, Any] = Field(description="Periods of training, calibration and test.")
    metrics: dict[str, float] = Field(description="Of the test period.")


class Model(BaseModel):
    """A registered model."""

    name: str = Field(examples=["finsight-1d"])
    description: str
    aliases: dict[str, str] = Field(description="Alias to version.", examples=[{"champion": "3"}])
    latest: str | None = Field(description="Newest version.", examples=["3"])
    serving: str | None = Field(description="Version that this replica answers with now.", examples=["3"])


class ModelDetail(Model):
    """A registered model with the facts of the version that `champion` names, else of the newest."""

    version: ModelVersion | None


class ModelPage(BaseModel):
    """A page of models, by name."""

    items: list[Model]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class VersionPage(BaseModel):
    """A page of versions, newest first."""

    items: list[ModelVersion]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class Health(BaseModel):
    """Liveness."""

    status: Literal["healthy", "degraded", "unhealthy"]
    service: Literal["finsight"] = "finsight"
    version: str
    timestamp: datetime


class Dependency(BaseModel):
    """How one dependency answered."""

    state: Literal["connected", "degraded", "down"]
    latency_ms: float = Field(description="Of the check itself.")
    required: bool = Field(description="Whether the whole service counts as unhealthy without it.")
    detail: str | None = Field(None, description="Why it is not connected, or what there is to know of it.")


class DetailedHealth(Health):
    """Liveness and every dependency."""

    dependencies: dict[str, Dependency]


class HealthAnswer(BaseModel):
    """Envelope of the health family."""

    success: bool = True
    data: Health


class DetailedHealthAnswer(BaseModel):
    """Envelope of the health family."""

    success: bool
    data: DetailedHealth


class BackfillRequest(Request):
    """Bars to fetch: `start <= ts < end`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "symbol": "SPX",
                    "interval": "1d",
                    "start": "2018-01-01T00:00:00Z",
                    "end": "2019-01-01T00:00:00Z",
                    "priority": "T0",
                }
            ]
        }
    )

    symbol: SymbolName
    interval: Interval = Interval.D1
    start: Moment
    end: Moment
    priority: Tier = Field("T2", description="T0 first.")

    @model_validator(mode="after")
    def _sensible_range(self) -> BackfillRequest:
        if self.end <= self.start:
            raise ValueError(f"end {self.end.isoformat()} must be after start {self.start.isoformat()}")
        if self.end - self.start > _LONGEST_BACKFILL:
            raise ValueError(f"the range is {(self.end - self.start).days} days long; at most 50 years")
        if self.start > datetime.now(UTC):
            raise ValueError(f"start {self.start.isoformat()} lies in the future")
        return self


class BackfillJob(BaseModel):
    """A range of bars in the backfill queue."""

    id: int
    symbol: str
    interval: str
    start: datetime
    end: datetime
    priority: str
    provider: str | None = Field(description="null: whichever provider has it.")
    state: Literal["ready", "leased", "done", "dead"]
    attempts: int
    reason: str | None = Field(description="Why it waits or died.")
    rows_written: int | None
    enqueued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class BackfillAccepted(BaseModel):
    """The jobs that cover the range; an equal or covering job that was there already is answered again."""

    job_ids: list[int]
    jobs: list[BackfillJob]


class BackfillAttempt(BaseModel):
    """One attempt of a job."""

    attempt: int = Field(description="1 for the first, and for the first after a requeue.")
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: Literal["done", "failed", "dead", "snoozed", "released", "lease_expired"] | None
    message: str | None = Field(description="What went wrong.")


class DeadLetter(BackfillJob):
    """A job that was given up, with its history."""

    requeue_count: int = Field(description="How often somebody has requeued it before.")
    history: list[BackfillAttempt] = Field(description="The last 20 attempts, the oldest first.")


class DeadLetterPage(BaseModel):
    """A page of given-up jobs, the youngest job first."""

    items: list[DeadLetter]
    next_cursor: str | None = Field(description="Pass it as `cursor` for the next page; null on the last.")


class BudgetWindow(BaseModel):
    """What is left of one window of a provider's rate limit."""

    limit: int = Field(description="Calls, or weight of calls.")
    seconds: float = Field(description="Length of the window.")
    left: int


class SetAside(BaseModel):
    """A provider that has refused us altogether."""

    reason: Literal["unauthorized", "restricted", "banned"] = Field(
        description="The key is not accepted, this place is not served, or too much was asked."
    )
    until: datetime = Field(description="When it is asked again; a reload with another key asks at once.")


class ProviderStats(BaseModel):
    """How a provider's gateway is doing."""

    provider: str = Field(examples=["sample"])
    state: Literal["CLOSED", "OPEN", "HALF_OPEN", "NOT_ENTITLED"]
    health_score: float = Field(description="0 (nothing works) to 1 (all is well).", examples=[1.0])
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    error_rate: float = Field(description="Failed share of the recent calls.")
    budget_left: list[BudgetWindow]
    last_error: str | None
    last_error_at: datetime | None
    last_success_at: datetime | None
    outcomes: dict[str, int] = Field(description="Calls since the gateway started, by outcome.")
    rejected_bars: int = Field(description="Bars that broke a rule and were not passed on.")
    set_aside: SetAside | None = Field(
        description="Why the provider is not asked at all; its state is `OPEN` then. `null` when it is asked."
    )


class ProviderPage(BaseModel):
    """All configured providers, by name."""

    items: list[ProviderStats]
    next_cursor: str | None = Field(description="Always null: the list has one page.")


class ReloadAnswer(BaseModel):
    """What a reload of the settings did."""

    generation: int = Field(description="Number of the reload; every replica follows the newest.")
    config_digest: str = Field(
        description="Stands for all settings that a reload can change, keys included.",
        examples=["1f2e3d4c5b6a7988"],
    )
    changed: list[str] = Field(
        description="Settings that have another value now.", examples=[["finnhub_api_key"]]
    )
    restart_needed: list[str] = Field(
        description="Settings that differ in the files, but count from the next start on."
    )
    reloaded: list[str] = Field(
        description="Actors that go by the settings now.", examples=[["gateway:finnhub"]]
    )
    started: list[str] = Field(description="Actors that the settings newly ask for.")
    stopped: list[str] = Field(description="Actors that they no longer ask for, after their last call.")
    failed: dict[str, str] = Field(
        description="Actors that could not be told, with the reason; they are told again within seconds."
    )
