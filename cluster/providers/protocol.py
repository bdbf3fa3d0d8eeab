"""What every provider of bars can do, and what those who only want bars ask for."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol, runtime_checkable

import pyarrow as pa

from cluster.market.adjustments import CorporateAction
from cluster.market.instants import Instants
from cluster.market.intervals import Interval
from cluster.market.symbols import AssetType, Instrument
from cluster.providers.budget import Window

Errand = Literal["quote", "actions", "instruments", "limits"]
"""What else than bars a provider may be asked for."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider offers, known without asking it."""

    intervals: frozenset[Interval]
    symbols: Container[str] | None
    """The symbols it knows, or `None` when only asking will tell. It travels to other processes."""
    page_bars: int
    """Most bars of one answer; a longer range is asked for page by page."""
    earliest: datetime | None = None
    """Nothing opens before this; `None` when that is not known."""
    until: datetime | None = None
    """Nothing opens at or after this: a data set that has ended; `None` when it goes on."""
    short_page_ends: bool = True
    """Whether an answer of less than `page_bars` bars is the end of the range, and not merely a hole."""
    weight: int = 1
    """What one call takes out of the provider's budget."""
    weights: Mapping[Errand, int] = field(default_factory=dict)
    """What a call takes that is not for bars, where that differs."""
    asset_types: frozenset[AssetType] | None = None
    """What kinds of instruments it has; `None`: any."""
    depth: Mapping[Interval, timedelta] = field(default_factory=dict)
    """How far back from now the bars of an interval reach; an interval that is not named: to `earliest`."""
    grace_s: float = 60.0
    """What it says of a bar may still change for so long after the bar's close."""


class BarProvider(Protocol):
    """One source of bars; the gateway in front of it keeps budget, breaker and statistics."""

    @property
    def name(self) -> str:
        """Goes into the column `source` of every bar, and into labels."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it offers."""
        ...

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """The first `page_bars` bars with `start <= ts < end`, `BAR_SCHEMA`, ascending by `ts`.

        A range without bars answers an empty table. Raises the subclasses of `ProviderError` but
        `Interrupted`; `InputError` for an interval that the provider does not offer, and for a request that
        it calls wrong.
        """
        ...

    def instruments(self) -> list[Instrument]:
        """Instruments that can be told without asking the provider; may be empty."""
        ...


@dataclass(frozen=True, slots=True)
class Many:
    """Bars of many symbols, and why there are none of the others."""

    table: pa.Table
    """`BAR_SCHEMA`; a symbol may have no bar in the range without that being an error."""
    errors: Mapping[str, Exception] = field(default_factory=dict)
    """By symbol: errors as those of `BarProvider.bars`."""


@runtime_checkable
class ManyBars(Protocol):
    """A provider that answers many symbols in one call, which costs what one call costs."""

    async def many(self, symbols: Sequence[str], interval: Interval, start: datetime, end: datetime) -> Many:
        """At most `page_bars` bars of all symbols together; raises what concerns them all."""
        ...


class BarSource(Protocol):
    """The narrow view of a gateway: a whole range of bars, checked."""

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """All bars with `start <= ts < end`, valid, sorted, unique; errors as those of `BarProvider.bars`.

        `Interrupted` when a part was answered before another error.
        """
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a range that `bars` answers as a whole."""

    start: datetime
    end: datetime
    calls: int = 1
    """Most calls that it takes."""


@runtime_checkable
class Spelling(Protocol):
    """A provider that knows of some symbols without a call that it has them not."""

    def spelled(self, symbol: str) -> str:
        """Its own spelling of `symbol`; raises `InvalidSymbol`."""
        ...


@runtime_checkable
class Stepping(Protocol):
    """A provider whose answers span a month or a week, so that a longer range takes several of them."""

    def step(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> Step | None:
        """The first part of [start, end) in which a bar can open; `None` when there is none."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """A provider whose answers lack bars that it gives when it is asked for them alone."""

    def forgotten(self, symbol: str, interval: Interval, step: Step, opens: Instants) -> Step | None:
        """What to ask for once more, because `opens`, all that was answered to `step`, lack it; or `None`."""
        ...


@dataclass(frozen=True, slots=True)
class Quote:
    """The last price of a symbol, as one provider told it."""

    symbol: str
    price: float
    ts: datetime
    """When it was traded, or as near to that as the provider tells."""
    source: str
    currency: str = ""
    """Unit of the price as the provider names it, `GBp` is pence; empty: that of the instrument."""


@runtime_checkable
class Quoting(Protocol):
    """A provider that also answers prices."""

    async def quote(self, symbol: str) -> Quote:
        """The last price; errors as those of `BarProvider.bars`."""
        ...


@runtime_checkable
class Acting(Protocol):
    """A provider that also tells splits and dividends."""

    async def actions(self, symbol: str, start: datetime, end: datetime) -> list[CorporateAction]:
        """Those with ex-dates from `start` to `end`; dividends as they were paid, not divided by splits.

        Errors as those of `BarProvider.bars`.
        """
        ...


@runtime_checkable
class Listing(Protocol):
    """A provider that has a list of what it trades."""

    async def list_instruments(self) -> list[Instrument]:
        """All of them; errors as those of `BarProvider.bars`."""
        ...


@runtime_checkable
class Limited(Protocol):
    """A provider that tells its limits."""

    async def limits(self) -> tuple[Window, ...]:
        """The windows of weight that hold for us; errors as those of `BarProvider.bars`."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A provider with connections."""

    async def close(self) -> None:
        """Close them."""
        ...


@runtime_checkable
class Metered(Protocol):
    """A provider whose answers tell how much of its limits is used."""

    def usage(self) -> Mapping[str, int]:
        """Weight used in each window by the last answer that told it, as in `{"1m": 37}`; else empty."""
        ...
