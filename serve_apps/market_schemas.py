"""Request and response bodies of the market data: bars, prices, symbols, gaps."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, Field, model_validator

from cluster.market.adjustments import Adjusted
from cluster.market.intervals import Interval
from cluster.market.symbols import CURRENCY_SPELLING, MAX_LENGTHS, AssetType, Tier
from serve_apps.schemas import Moment, Request, SymbolName

Order = Literal["asc", "desc"]
MissingState = Literal["open", "known"]
MissingCause = Literal[
    "not_fetched", "queued", "given_up", "no_data", "provider_hole", "rejected", "no_trades", "venue_down",
    "unfillable",
]  # fmt: skip

NEXT_CURSOR = "Pass it as `cursor` for the next page; null on the last."
_CURSOR = "`next_cursor` of the page before."


SymbolPath = Annotated[SymbolName, Path()]


# What else is wrong with a text, `symbols.require_texts` tells, as it does for the other ways in.
Words = Annotated[str, Field(max_length=MAX_LENGTHS["name"])]
Exchange = Annotated[str, Field(min_length=1, max_length=MAX_LENGTHS["exchange"], examples=["NASDAQ"])]
Calendar = Annotated[str, Field(min_length=1, max_length=MAX_LENGTHS["calendar"], examples=["XNYS"])]
Currency = Annotated[str, Field(pattern=CURRENCY_SPELLING, examples=["USD"])]
Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class BarsRequest(Request):
    """Bars of one symbol: `start <= ts < end`."""

    symbol: SymbolName
    timeframe: Interval = Field(Interval.D1, description="Length of a bar.")
    start: Moment | None = Field(None, description="Default: the oldest bar.")
    end: Moment | None = Field(None, description="Not included. Default: up to the newest bar.")
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Most bars of this page. Without it the whole range is answered, and refused when it "
        "holds more than MAX_DATA_POINTS bars.",
    )
    order: Order = Field("asc", description="`desc`: the newest first.")
    adjusted: Adjusted = Field(
        Adjusted.NONE,
        description="`none`: prices as they were traded. `splits`: prices and volume as if every split up to "
        "now had always been. `all`: dividends are taken off the prices too.",
    )
    cursor: Annotated[str, Field(max_length=512)] | None = Field(None, description=_CURSOR)

    @model_validator(mode="after")
    def _not_empty(self) -> BarsRequest:
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end.isoformat()} must be after start {self.start.isoformat()}")
        return self


class StoredBar(BaseModel):
    """One stored bar."""

    ts: datetime = Field(description="Bar OPEN.", examples=["2018-12-31T14:30:00Z"])
    open: float = Field(examples=[2498.94])
    high: float = Field(examples=[2509.24])
    low: float = Field(examples=[2482.82])
    close: float = Field(examples=[2506.85])
    volume: float | None = Field(description="null: unknown.", examples=[3442870000.0])
    trade_count: int | None = Field(description="null: unknown.")
    source: str = Field(description="Provider that gave the values.", examples=["sample"])
    is_final: bool = Field(description="false: the bar still runs, or its last values have still to come.")
    revision: int = Field(description="How often the values were changed.", examples=[0])


class BarPage(BaseModel):
    """Bars of one symbol."""

    symbol: str = Field(examples=["SPX"])
    timeframe: Interval
    adjusted: Adjusted
    items: list[StoredBar]
    next_cursor: str | None = Field(description=NEXT_CURSOR)


class Price(BaseModel):
    """The newest price of a symbol."""

    symbol: str = Field(examples=["SPX"])
    price: float = Field(
        description="Close of the newest stored bar; or, when a later one should be stored by now, the last "
        "price that a provider tells.",
        examples=[2506.85],
    )
    currency: str = Field(
        description="Unit of the price, as the provider names it when it tells one: `GBp` is pence.",
        examples=["USD"],
    )
    kind: Literal["bar", "quote"] = Field(description="What the price is of.")
    ts: datetime = Field(
        description="OPEN of the bar; of a quote when it was traded, as near as the provider tells.",
        examples=["2018-12-31T14:30:00Z"],
    )
    interval: Interval | None = Field(description="Length of the bar; `null` for a quote.")
    is_final: bool | None = Field(description="false: the bar still runs; `null` for a quote.")
    source: str = Field(description="Provider that gave it.", examples=["sample"])
    as_of: datetime = Field(
        description="When the price held: the bar's close, or when it was written while the bar still runs; "
        "`ts` of a quote.",
        examples=["2018-12-31T21:00:00Z"],
    )
    age_seconds: float = Field(description="Since `as_of`.", examples=[3.2])
    stale: bool = Field(
        description="Whether there should be a later price by now, by the exchange's calendar. A closed "
        "market makes no price stale."
    )


class SymbolEntry(BaseModel):
    """A symbol of the universe."""

    symbol: str = Field(examples=["SPX"])
    exchange: str = Field(examples=["INDEX"])
    asset_type: AssetType
    calendar: str = Field(description="Exchange calendar, or 24/7.", examples=["XNYS"])
    name: str = Field(examples=["S&P 500"])
    currency: str = Field(examples=["USD"])
    tier: Tier = Field(description="How urgent its data is; T0 first.")
    active: bool = Field(description="Whether it is collected and trained on.")
    adv_21d: float | None = Field(description="Average daily volume of 21 sessions, in units.")
    mkt_cap: float | None = Field(description="Market capitalisation in `currency`.")


class SymbolPage(BaseModel):
    """A page of symbols, by name."""

    items: list[SymbolEntry]
    next_cursor: str | None = Field(description=NEXT_CURSOR)


class NewSymbol(Request):
    """A symbol that is to be added to the universe."""

    exchange: Exchange
    asset_type: AssetType = "equity"
    calendar: Calendar | None = Field(None, description="Default: 24/7 for crypto, else XNYS.")
    name: Words = ""
    currency: Currency = "USD"
    tier: Tier = "T2"
    active: bool = Field(default=True, strict=True)
    adv_21d: Quantity | None = None
    mkt_cap: Quantity | None = None


class SymbolChange(Request):
    """What is to be changed of a symbol; a field that is left out stays as it is."""

    exchange: Exchange | None = None
    asset_type: AssetType | None = None
    calendar: Calendar | None = None
    name: Words | None = None
    currency: Currency | None = None
    tier: Tier | None = None
    active: Annotated[bool, Field(strict=True)] | None = None
    adv_21d: Quantity | None = Field(None, description="null: unknown.")
    mkt_cap: Quantity | None = Field(None, description="null: unknown.")

    @model_validator(mode="after")
    def _something_sensible(self) -> SymbolChange:
        if not self.model_fields_set:
            raise ValueError(f"nothing to change; give one of {', '.join(type(self).model_fields)}")
        empty = {name for name, value in self.changes().items() if value is None}
        if wrong := sorted(empty - {"adv_21d", "mkt_cap"}):
            raise ValueError(f"{', '.join(wrong)}: null is no value; leave it out to keep what is there")
        return self

    def changes(self) -> dict[str, Any]:
        """The fields that were given."""
        return self.model_dump(exclude_unset=True)


class UniverseVersion(BaseModel):
    """A named state of the universe."""

    version_tag: str = Field(examples=["2025w41-manual-top100"])
    source_meta: dict[str, Any] = Field(description="Where it came from.", examples=[{"source": "manual"}])
    created_at: datetime


class UniversePage(BaseModel):
    """A page of versions, newest first."""

    items: list[UniverseVersion]
    next_cursor: str | None = Field(description=NEXT_CURSOR)


class MissingBars(BaseModel):
    """Missing bars that follow each other and have one cause: `start <= ts < end`."""

    symbol: str = Field(examples=["SPX"])
    interval: Interval
    tier: Tier
    start: datetime
    end: datetime
    missing: int = Field(description="Expected bars in the range; all of them are missing.", examples=[2])
    state: MissingState = Field(
        description="`open`: it is to be filled. `known`: providers were asked, or cannot have it."
    )
    cause: MissingCause = Field(
        description="`not_fetched`: nobody has asked yet. `queued`: a backfill job has it. `given_up`: a job "
        "died of it. `no_data`: the provider has nothing around it. `provider_hole`: the provider has the "
        "neighbours. `rejected`: the provider's bars were not valid. `no_trades`: two providers lack it and "
        "have the neighbours. `venue_down`: every watched symbol of the venue lacks it. `unfillable`: no "
        "provider reaches back to it, or all were asked in vain."
    )
    provider: str | None = Field(description="Who was asked, where that is known.")
    detail: str | None = Field(description="Why the job was given up, or what the cause was told by.")


class GapPage(BaseModel):
    """A page of missing bars, by symbol and start; it may be short, or empty, and not be the last."""

    items: list[MissingBars]
    next_cursor: str | None = Field(description=NEXT_CURSOR)


class CadenceStats(BaseModel):
    """How the bars of one tier and interval are collected; the last look is null before there was one."""

    tier: Tier
    interval: Interval
    cadence_s: float = Field(description="Seconds between two looks for new bars.", examples=[60.0])
    expected_lag_s: float | None = Field(
        None, description="Longest time from the close of a bar to the look that finds it.", examples=[0.5]
    )
    lag_p50_s: float | None = Field(
        description="From the close of the newest bar of a symbol to its commit, and for a symbol that lacks "
        "it, from the close of the first that is missing up to the look: median over the symbols. Grows "
        "while a look is overdue."
    )
    lag_p99_s: float | None = Field(description="The same, 99th percentile.", examples=[1.9])
    last_run_at: datetime | None = Field(description="When the last look had ended.")
    next_run_at: datetime | None = Field(description="When the next one is due.")
    silent_collectors: int = Field(
        0, description="Of FINSIGHT_COLLECTORS, those of whose symbols nothing is told: they never looked."
    )
    symbols: int = Field(0, description="Active symbols of the tier.", examples=[5000])
    idle: int = Field(0, description="Of these, nothing was due: the market is closed or all is stored.")
    unserved: int = Field(0, description="Of these, no provider gives bars.")
    failed: int = Field(0, description="Of these, every provider that was asked failed.")
    bars: int = Field(description="Bars that the last look inserted or changed.")


class CadencePage(BaseModel):
    """All that is collected, by tier."""

    items: list[CadenceStats]
    next_cursor: str | None = Field(description="Always null: the list has one page.")
