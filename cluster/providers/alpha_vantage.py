"""Bars and prices of US stocks from Alpha Vantage.

Source: alphavantage.co/documentation, as of November 2026. A free key has 25 calls a day and one a second;
only the words of an answer tell when they are used up, no status and no header does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pyarrow as pa

from cluster.clock import SystemClock
from cluster.errors import InputError, OutOfHorizon, ProviderDown, Unauthorized
from cluster.market import bars, calendars
from cluster.market.instants import to_moment
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers import alpha_vantage_wire as wire
from cluster.providers.alpha_vantage_wire import CALENDAR, NAME, SPELLING
from cluster.providers.exchange_time import NEW_YORK, first_open, midnights
from cluster.providers.http import Answer, Http
from cluster.providers.protocol import Capabilities, Quote, Step
from cluster.providers.reading import read
from cluster.providers.symbology import spelled_by_alpha_vantage

BASE_URL = "https://www.alphavantage.co"

COMPACT_SESSIONS = 100
"""Daily bars that a free plan has: the latest ones."""
_COMPACT_DEPTH = timedelta(days=140)

KEPT_S = 60.0
"""For so long the rest of a month is answered out of the answer before: a call is a 25th of a day's quota."""

_FIRST_MONTH = datetime(2000, 1, 1, 5, tzinfo=UTC)
_FIRST_DAY = datetime(1999, 11, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Kept:
    """The last answer: all bars of one month, or of all days."""

    params: dict[str, str | int]
    table: pa.Table
    at: datetime


class AlphaVantageProvider:
    """Answers raw bars of regular hours, intraday by calendar month; not adjusted for splits and dividends.

    Asks for nothing when the calendar says that no bar can open in the range. `labels` is the end of a bar
    that its label is taken to tell where an answer does not show it.
    """

    name = NAME

    def __init__(
        self,
        base_url: str = BASE_URL,
        api_key: str = "",
        now: Callable[[], datetime] | None = None,
        *,
        premium: bool = False,
        labels: wire.Side = "start",
        timeout_s: float = 20.0,
    ) -> None:
        self._now = now or SystemClock().now
        self._http = Http(NAME, base_url, secrets=(api_key,), now=self._now, timeout_s=timeout_s)
        self._api_key = api_key
        self._premium = premium
        self._labels = labels
        self._capabilities = Capabilities(
            intervals=frozenset({*SPELLING, Interval.D1}),
            symbols=None,
            page_bars=10_000,
            earliest=_FIRST_DAY,
            short_page_ends=False,
            asset_types=frozenset({"equity", "etf"}),
            depth={} if premium else {Interval.D1: _COMPACT_DEPTH},
        )
        self._kept: _Kept | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Without `premium` the daily bars reach back for the latest 100 sessions only."""
        return self._capabilities

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """The bars of [start, end) in its first month that has any; a call for each month until then.

        Without `premium` there are the latest 100 daily bars, and a range before them is `OutOfHorizon`
        without a call. Raises as `BarProvider.bars`.
        """
        while (step := self.step(symbol, interval, start, end)) is not None:
            first = step.start
            params = self._daily(symbol, first) if interval.is_daily else _intraday(symbol, interval, first)
            found = bars.between(await self._table(params, symbol, interval), start, step.end)
            if found.num_rows:
                return found
            start = step.end
        return bars.empty()

    def step(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> Step | None:
        """The first month of [start, end) in which a bar can open, or all its days: one call."""
        if interval not in self.capabilities.intervals:
            raise InputError(f"provider {NAME} offers {', '.join(SPELLING)}, 1d; asked for {interval}")
        spelled_by_alpha_vantage(symbol)
        end = min(end, self._now())
        if interval.is_daily and not self._premium and start < end <= (horizon := self._compact_from()):
            raise OutOfHorizon(f"{NAME} has the latest {COMPACT_SESSIONS} days of {symbol} only", horizon)
        earliest = _FIRST_DAY if interval.is_daily else _FIRST_MONTH
        first = first_open(CALENDAR, interval, max(start, earliest), end)
        if first is None:
            return None
        return Step(first, end if interval.is_daily else min(end, _next_month(first)))

    def instruments(self) -> list[Instrument]:
        """None: only the service knows its symbols."""
        return []

    def spelled(self, symbol: str) -> str:
        """See `spelled_by_alpha_vantage`."""
        return spelled_by_alpha_vantage(symbol)

    async def quote(self, symbol: str) -> Quote:
        """The price of the latest trading day, one call; `ts` is its close, or now when that is earlier."""
        spelled = spelled_by_alpha_vantage(symbol)
        answer = await self._get({"function": "GLOBAL_QUOTE", "symbol": spelled})
        return read(answer, partial(wire.parse_quote, symbol=symbol, now=self._now()))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _table(self, params: dict[str, str | int], symbol: str, interval: Interval) -> pa.Table:
        kept, now = self._kept, self._now()
        if kept and kept.params == params and kept.at <= now < kept.at + timedelta(seconds=KEPT_S):
            return kept.table
        answer = await self._get(params)
        parse = partial(wire.parse_intraday, interval=interval, assumed=self._labels)
        parse = partial(wire.parse_daily if interval.is_daily else parse, symbol=symbol, now=self._now())
        table = await asyncio.to_thread(read, answer, parse)  # a month is megabytes
        self._kept = _Kept(params, table, self._now())
        return table

    async def _get(self, params: dict[str, str | int]) -> Answer:
        if not self._api_key:
            raise Unauthorized(f"{NAME} needs a key: set ALPHA_VANTAGE_API_KEY")
        answer = await self._http.get("/query", {**params, "datatype": "json", "apikey": self._api_key})
        if answer.status == 401:
            raise Unauthorized(f"{NAME} does not accept the key; check ALPHA_VANTAGE_API_KEY")
        if answer.status != 200:
            raise ProviderDown(f"{NAME} answered HTTP {answer.status}: {answer.excerpt()}")
        return answer

    def _daily(self, symbol: str, first: datetime) -> dict[str, str | int]:
        size = "full" if self._premium and first < self._compact_from() else "compact"
        spelled = spelled_by_alpha_vantage(symbol)
        return {"function": "TIME_SERIES_DAILY", "symbol": spelled, "outputsize": size}

    def _compact_from(self) -> datetime:
        """The open of the earliest session that the latest bars include for sure."""
        now = self._now()
        opens = calendars.sessions(CALENDAR, now - timedelta(days=2 * COMPACT_SESSIONS), now).opens
        return to_moment(opens[-COMPACT_SESSIONS])


def _intraday(symbol: str, interval: Interval, first: datetime) -> dict[str, str | int]:
    """The parameters for the month of `first`; what has an unwanted default is always told."""
    return {
        "function": "TIME_SERIES_INTRADAY",
        "symbol": spelled_by_alpha_vantage(symbol),
        "interval": SPELLING[interval],
        "month": first.astimezone(NEW_YORK).strftime("%Y-%m"),
        "outputsize": "full",
        "adjusted": "false",
        "extended_hours": "false",
    }


def _next_month(moment: datetime) -> datetime:
    """When the month after that of `moment` begins in New York."""
    month = np.datetime64(moment.astimezone(NEW_YORK).strftime("%Y-%m")) + 1
    return to_moment(midnights(np.array([month]), NEW_YORK)[0])
