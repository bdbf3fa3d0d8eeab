"""Bars and prices of US stocks from Finnhub.

Source: finnhub.io/docs/api, as of November 2026. A free key has 60 calls a minute and no candles; every plan
has 30 calls a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import pyarrow as pa

from cluster.clock import SystemClock
from cluster.errors import InputError, Unauthorized
from cluster.market import bars
from cluster.market.adjustments import CorporateAction
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers import finnhub_wire as wire
from cluster.providers.exchange_time import NEW_YORK, first_open
from cluster.providers.finnhub_wire import CALENDAR, NAME, RESOLUTION
from cluster.providers.http import Answer, Http, Throttled
from cluster.providers.kept_splits import KeptSplits
from cluster.providers.protocol import Capabilities, Quote, Step
from cluster.providers.reading import read
from cluster.providers.symbology import spelled_by_finnhub

BASE_URL = "https://finnhub.io/api/v1"

INTRADAY_WINDOW = timedelta(days=30)
"""It answers no more than a month of intraday bars at a time."""

_EARLIEST = datetime(1990, 1, 2, tzinfo=UTC)


class FinnhubProvider:
    """Answers raw bars of regular hours.

    Its daily bars come divided by splits, which is undone with the splits that it tells; without these, which
    are a part of the plan of their own, it has no daily bars. The key travels in a header, never in a URL.
    Asks for nothing when no bar can open in the range.
    """

    name = NAME
    capabilities = Capabilities(
        intervals=frozenset(RESOLUTION),
        symbols=None,
        page_bars=10_000,
        earliest=_EARLIEST,
        short_page_ends=False,
        asset_types=frozenset({"equity", "etf"}),
    )

    def __init__(
        self,
        base_url: str = BASE_URL,
        api_key: str = "",
        now: Callable[[], datetime] | None = None,
        *,
        timeout_s: float = 20.0,
    ) -> None:
        self._now = now or SystemClock().now
        headers = {"X-Finnhub-Token": api_key}
        self._http = Http(
            NAME, base_url, headers=headers, secrets=(api_key,), now=self._now, timeout_s=timeout_s
        )
        self._has_key = bool(api_key)
        self._usage: Mapping[str, int] = {}
        self._splits = KeptSplits()

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """The bars of [start, end) in the first 30 days that have any; a call for each 30 days until then.

        Daily bars come all at once. Raises as `BarProvider.bars`.
        """
        while (step := self.step(symbol, interval, start, end)) is not None:
            found = await self._candles(symbol, interval, step.start, step.end)
            if found.num_rows:
                return found
            start = step.end
        return bars.empty()

    def step(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> Step | None:
        """The first 30 days of [start, end) in which a bar can open, or all its days.

        Days take two calls where the splits have to be asked for, too.
        """
        if interval not in RESOLUTION:
            raise InputError(f"provider {NAME} offers {', '.join(RESOLUTION)}; asked for {interval}")
        spelled_by_finnhub(symbol)
        end = min(end, self._now())
        first = first_open(CALENDAR, interval, max(start, _EARLIEST), end)
        if first is None:
            return None
        if interval.is_daily:
            known = self._splits.since(symbol, first, self._now())
            return Step(first, end, 2 if known is None else 1)
        return Step(first, min(end, first + INTRADAY_WINDOW))

    def instruments(self) -> list[Instrument]:
        """None: only the service knows its symbols."""
        return []

    def spelled(self, symbol: str) -> str:
        """See `spelled_by_finnhub`."""
        return spelled_by_finnhub(symbol)

    async def quote(self, symbol: str) -> Quote:
        """The last price, one call; raises as `BarProvider.bars`."""
        answer = await self._get("/quote", {"symbol": spelled_by_finnhub(symbol)})
        return read(answer, partial(wire.parse_quote, symbol=symbol, received_at=answer.received_at))

    def usage(self) -> Mapping[str, int]:
        """Calls of the minute as the last answer told them, such as `{"1m": 37}`."""
        return self._usage

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _candles(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        since, last = (_label(moment, interval) for moment in (start, end - timedelta(microseconds=1)))
        params: dict[str, str | int] = {
            "symbol": spelled_by_finnhub(symbol),
            "resolution": RESOLUTION[interval],
            "from": since,
            "to": last,
        }
        answer = await self._get("/stock/candle", params)
        parse = partial(wire.parse_candles, symbol=symbol, interval=interval, now=self._now())
        table = bars.between(await asyncio.to_thread(read, answer, parse), start, end)
        if not (interval.is_daily and table.num_rows):
            return table
        today = self._now().astimezone(NEW_YORK).date()
        return wire.raw_days(table, await self._splits_since(symbol, start), today)

    async def _splits_since(self, symbol: str, start: datetime) -> Sequence[CorporateAction]:
        now = self._now()
        splits = self._splits.since(symbol, start, now)
        if splits is None:
            days = {"from": f"{start:%Y-%m-%d}", "to": f"{now:%Y-%m-%d}"}
            answer = await self._get("/stock/split", {"symbol": spelled_by_finnhub(symbol), **days})
            splits = read(answer, partial(wire.parse_splits, symbol=symbol))
            self._splits.keep(symbol, splits, start, now, NEW_YORK)
        return splits

    async def _get(self, path: str, params: Mapping[str, str | int]) -> Answer:
        if not self._has_key:
            raise Unauthorized(f"{NAME} needs a key: set FINNHUB_API_KEY")
        try:
            answer = await self._http.get(path, params)
        except Throttled as error:
            if error.answer is None:
                raise
            self._usage = wire.parse_usage(error.answer.headers) or self._usage
            raise wire.throttled(error.answer, error) from None
        self._usage = wire.parse_usage(answer.headers) or self._usage
        refused = wire.refusal(answer)
        if refused is not None:
            raise refused
        return answer


def _label(moment: datetime, interval: Interval) -> int:
    """The label of the bar that opens at `moment`, in seconds; that of a day is its midnight in New York."""
    if interval.is_daily:
        moment = moment.astimezone(NEW_YORK).replace(hour=0, minute=0, second=0, microsecond=0)
    return int(moment.timestamp())
