"""Yahoo's chart service: daily bars from 1990 on, minutes of a month, splits and dividends; without a key.

It is not documented and promises nothing. Bars come as they were traded: see `yahoo_bars`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import structlog

from cluster.clock import SystemClock
from cluster.errors import (
    InputError,
    Malformed,
    OutOfHorizon,
    ProviderDown,
    ProviderError,
    RateLimited,
    Restricted,
    Unauthorized,
)
from cluster.market import bars, calendars
from cluster.market.adjustments import CorporateAction
from cluster.market.instants import Instants, to_instant, to_moment
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument, parse_symbol
from cluster.providers.exchange_time import SETTLE, first_open
from cluster.providers.http import Answer, Http
from cluster.providers.kept_splits import KeptSplits
from cluster.providers.protocol import Capabilities, Quote, Step
from cluster.providers.reading import read
from cluster.providers.symbology import spelled_by_yahoo
from cluster.providers.yahoo_bars import half_hours, raw_actions, raw_bars
from cluster.providers.yahoo_wire import GRANULARITY, NAME, Chart, parse_chart

BASE_URL = "https://query1.finance.yahoo.com"
PAGE_BARS = 10_080

DEPTH = {
    Interval.M1: timedelta(days=29),
    Interval.M5: timedelta(days=59),
    Interval.M15: timedelta(days=59),
    Interval.M30: timedelta(days=59),
    Interval.H1: timedelta(days=729),
}
"""A day less than Yahoo keeps, for it measures by its own clock and calendar."""

COOL_DOWN = (timedelta(minutes=1), timedelta(hours=1))
"""First and longest time away after 429 or 403; it doubles with every one in a row."""

_LAST_COOL_DOWN = 2
"""After so many 403 in a row, the next one is taken for final."""

_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_AGREES_AFTER = timedelta(minutes=5)
_ASKED_ALONE = np.timedelta64(14, "D")
"""Missing days that are asked for once more lie so close together."""
_UNIT_HOLDS = timedelta(days=1)
"""Another unit of currency that has been told for so long, and no other, is the unit now."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last closed daily bar at its first reading."""

    bar: tuple[object, ...]
    opened: datetime
    read_at: datetime


class YahooProvider:
    """Bars, prices, splits and dividends; a `BarProvider` and `Quoting`.

    `api_key` goes as `X-API-Key` to a paid gateway at `base_url`; Yahoo itself wants none. The newest daily
    bar is final only when a second reading, five minutes later or more, says the same.
    """

    name = NAME
    capabilities = Capabilities(
        intervals=frozenset({*GRANULARITY, Interval.M30}),
        symbols=None,
        page_bars=PAGE_BARS,
        earliest=_EARLIEST,
        short_page_ends=False,
        asset_types=frozenset({"equity", "etf", "index", "crypto", "fx"}),
        depth=DEPTH,
    )

    def __init__(
        self,
        base_url: str = BASE_URL,
        api_key: str = "",
        now: Callable[[], datetime] | None = None,
        *,
        jitter: Callable[[], float] = random.random,
        timeout_s: float = 20.0,
    ) -> None:
        self._now = now or SystemClock().now
        self._jitter = jitter
        headers = {"user-agent": "Mozilla/5.0 (compatible; finsight)"}  # a library's own name is answered 429
        if api_key:
            headers["x-api-key"] = api_key
        self._http = Http(
            NAME, base_url, headers=headers, secrets=(api_key,), now=self._now, timeout_s=timeout_s
        )
        self._throttled = 0
        self._forbidden = 0
        self._calendars: dict[str, str] = {}
        self._unsplittable: set[str] = set()
        self._currencies: dict[str, str] = {}
        self._doubted: dict[str, tuple[str, datetime]] = {}
        self._splits = KeptSplits()
        self._seen: dict[str, _Seen] = {}

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """The bars of [start, end) in its first window that has any: a week of `1m`, 27 years of `1d`.

        A call for each window until then, and one more an hour for the splits since an older window. What
        lies beyond `DEPTH` is never asked for; a range that lies there as a whole is `OutOfHorizon`.
        """
        while (step := self.step(symbol, interval, start, end)) is not None:
            table = await self._page(symbol, interval, step.start, step.end)
            if table.num_rows:
                return table
            start = step.end
        return bars.empty()

    def step(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> Step | None:
        """The first window of [start, end), from where a bar can open when the exchange is known.

        It takes two calls where the splits since then have to be asked for, too.
        """
        if interval not in self.capabilities.intervals:
            raise InputError(f"provider {NAME} has no {interval} bars")
        cursor, end = self._kept(symbol, interval, start, end)
        if cursor < end and symbol in self._calendars:
            cursor = first_open(self._calendars[symbol], interval, cursor, end) or end
        if cursor >= end:
            return None
        longest = min(PAGE_BARS * timedelta(seconds=interval.seconds), _window(interval))
        end = min(end, cursor + longest)
        whole = symbol in self._unsplittable or end + _margin(interval) >= self._now()
        known = whole or self._splits.since(symbol, cursor, self._now()) is not None
        return Step(cursor, end, 1 if known else 2)

    def forgotten(self, symbol: str, interval: Interval, step: Step, opens: Instants) -> Step | None:
        """The newest days that have closed and are missing after the first of `opens`, of two weeks.

        Long answers lack days that a short one has, and the day before may have no prices for hours.
        """
        if not interval.is_daily or not len(opens):
            return None
        known = calendars.sessions(self._calendars[symbol], step.start, step.end)
        closed = known.closes + np.timedelta64(SETTLE) <= to_instant(self._now())
        missing = np.setdiff1d(known.opens[closed & (known.opens > opens.min())], opens)
        if not len(missing):
            return None
        first, last = missing[missing > missing[-1] - _ASKED_ALONE][0], missing[-1]
        return self.step(symbol, interval, to_moment(first), to_moment(last) + timedelta(microseconds=1))

    async def actions(self, symbol: str, start: datetime, end: datetime) -> list[CorporateAction]:
        """Splits, and dividends as they were paid, with ex-dates from `start` to `end`; one call.

        Those that are not believed are left out, and logged.
        """
        chart = await self._events(symbol, start)
        if chart is None:
            return []
        good, doubtful = raw_actions(chart.actions, chart.splits)
        for action in doubtful:
            _log.warning("doubtful_action", symbol=symbol, ex_date=str(action.ex_date), value=action.value)
        first, last = (at.astimezone(chart.zone).date() for at in (start, end))
        return [action for action in good if first <= action.ex_date <= last]

    async def quote(self, symbol: str) -> Quote:
        """The price of the last trade, one call; raises as `BarProvider.bars`."""
        now = self._now()
        chart = await self._chart(symbol, Interval.D1, "1d", now - 7 * _DAY, now)
        if chart is None or not chart.told_at_s or not chart.price > 0:
            raise Malformed(f"yahoo told no price of {symbol}")
        return Quote(symbol, chart.price, datetime.fromtimestamp(chart.told_at_s, UTC), NAME, chart.currency)

    def instruments(self) -> list[Instrument]:
        """None: Yahoo has no list."""
        return []

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    def _kept(
        self, symbol: str, interval: Interval, start: datetime, end: datetime
    ) -> tuple[datetime, datetime]:
        """The part of [start, end) that Yahoo may have."""
        now = self._now()
        depth = DEPTH.get(interval)
        earliest = _EARLIEST if depth is None else now - depth
        if depth is not None and start < end <= earliest:
            raise OutOfHorizon(
                f"yahoo keeps {interval} bars of {depth.days} days; those of {symbol} before "
                f"{earliest.isoformat()} are gone",
                earliest,
            )
        return max(start, earliest), min(end, now)

    async def _page(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        asked = Interval.M15 if interval is Interval.M30 else interval
        margin = _margin(interval)
        chart = await self._chart(symbol, asked, GRANULARITY[asked], start - margin, end + margin)
        if chart is None:
            return bars.empty()
        splits = await self._splits_until_now(chart, start, end + margin)
        table = await asyncio.to_thread(raw_bars, chart, asked, splits, self._now())
        if interval is Interval.M30:
            table = bars.with_rejected(half_hours(table, chart.calendar), bars.rejected_of(table))
        table = bars.between(table, start, end)
        return self._agreed(symbol, table) if interval.is_daily else table

    async def _splits_until_now(
        self, chart: Chart, start: datetime, end: datetime
    ) -> Sequence[CorporateAction]:
        """The chart's own when it reaches until now, else those of a call that does."""
        now = self._now()
        if not chart.can_split or end >= now:
            return chart.splits
        splits = self._splits.since(chart.symbol, start, now)
        if splits is None:
            events = await self._events(chart.symbol, start)
            splits = events.splits if events else []
            self._splits.keep(chart.symbol, splits, start, now, chart.zone)
        return splits

    async def _events(self, symbol: str, start: datetime) -> Chart | None:
        """A chart of few rows with all actions since `start`."""
        return await self._chart(symbol, None, "1mo", start - _DAY, self._now() + _DAY)

    async def _chart(
        self, symbol: str, interval: Interval | None, granularity: str, start: datetime, end: datetime
    ) -> Chart | None:
        params: dict[str, str | int] = {
            "interval": granularity,
            "period1": math.floor(max(start, _EARLIEST).timestamp()),
            "period2": math.ceil(end.timestamp()),
            "includePrePost": "false",
            "events": "div,splits",
        }
        answer = await self._get(f"/v8/finance/chart/{spelled_by_yahoo(parse_symbol(symbol))}", params)
        chart = await asyncio.to_thread(
            read, answer, lambda document: parse_chart(document, symbol, interval)
        )
        if chart is not None:
            self._calendars[symbol] = chart.calendar
            if not chart.can_split:
                self._unsplittable.add(symbol)
            self._require_currency(chart)
        return chart

    async def _get(self, path: str, params: dict[str, str | int]) -> Answer:
        try:
            answer = await self._http.get(path, params)
        except RateLimited as error:
            raise self._cooling(str(error), error.retry_at) from None
        self._forbidden = self._forbidden + 1 if answer.status == 403 else 0
        if answer.status == 403 or b"Too Many Requests" in answer.body[:200]:
            raise self._shut_out(answer)
        if answer.status == 401:
            raise Unauthorized(f"yahoo wants a session or a key: {answer.excerpt()}")
        if answer.body.lstrip()[:1] == b"<":
            raise ProviderDown(f"yahoo answered a page of HTML, not bars: {answer.excerpt()}")
        self._throttled = 0
        return answer

    def _shut_out(self, answer: Answer) -> ProviderError:
        """One 403 may only mean too many requests; when cooling down does not help, it is meant."""
        told = f"yahoo answered {answer.status}: {answer.excerpt()}"
        if self._forbidden > _LAST_COOL_DOWN:
            return Restricted(f"{told}, {self._forbidden} times in a row")
        return self._cooling(told, self._now())

    def _cooling(self, told: str, retry_at: datetime) -> RateLimited:
        """Away for longer each time in a row, and never at the same moment as others."""
        first, longest = COOL_DOWN
        wait = min(longest, first * 2 ** min(self._throttled, 10)) * (0.5 + 0.5 * self._jitter())
        self._throttled += 1
        return RateLimited(told, max(retry_at, self._now() + wait))

    def _require_currency(self, chart: Chart) -> None:
        known, now = self._currencies.setdefault(chart.symbol, chart.currency), self._now()
        other, since = self._doubted.get(chart.symbol, ("", now))
        if known == chart.currency or (other == chart.currency and now - since >= _UNIT_HOLDS):
            self._currencies[chart.symbol] = chart.currency
            self._doubted.pop(chart.symbol, None)
        else:
            self._doubted[chart.symbol] = chart.currency, since if other == chart.currency else now
            raise Malformed(f"yahoo told {chart.symbol} in {known} before and in {chart.currency} now")

    def _agreed(self, symbol: str, table: pa.Table) -> pa.Table:
        """The newest closed daily bar is not final before a later reading says the same."""
        final = table["is_final"].to_pylist()
        places = [place for place, is_final in enumerate(final) if is_final]
        now = self._now()
        if not places or now - (opened := table["ts"][places[-1]].as_py()) > 2 * _DAY:
            return table
        bar = tuple(table[name][places[-1]].as_py() for name in (*bars.PRICES, "volume"))
        seen = self._seen.get(symbol)
        if seen is not None and opened < seen.opened:
            return table
        if seen is None or (seen.opened, seen.bar) != (opened, bar):
            seen = self._seen[symbol] = _Seen(bar, opened, now)
        final[places[-1]] = now - seen.read_at >= _AGREES_AFTER
        place = table.schema.get_field_index("is_final")
        return table.set_column(place, table.schema.field(place), pa.array(final))


def _margin(interval: Interval) -> timedelta:
    """How much more than the range is asked for on both of its sides."""
    return _DAY if interval.is_daily else timedelta(seconds=interval.seconds)


def _window(interval: Interval) -> timedelta:
    """Longest range of one call."""
    return timedelta(days=7) if interval is Interval.M1 else DEPTH.get(interval, timedelta(days=PAGE_BARS))
