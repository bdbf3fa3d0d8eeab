"""Bars, instruments and prices of Binance's spot market, over its public REST API.

Source: rest-api.md of github.com/binance/binance-spot-api-docs, as of November 2026. Market data needs no
key; limits are per IP address: 6 000 of weight a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pyarrow as pa

from cluster.errors import FinSightError, Malformed
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers import binance_refusals, binance_wire
from cluster.providers.binance_wire import NAME
from cluster.providers.budget import Window
from cluster.providers.http import Answer, Http, Throttled
from cluster.providers.protocol import Capabilities, Quote
from cluster.providers.reading import read
from cluster.providers.symbology import spelled_by_binance

BASE_URL = "https://data-api.binance.vision"
"""Serves market data only, and so asks for no account."""

KLINES_WEIGHT = 2
PRICE_WEIGHT = 2
EXCHANGE_INFO_WEIGHT = 20

SETTLE = timedelta(seconds=3)
"""REST is served from a database that lags behind the trades: a bar is not final before this has passed."""

_PAGE_BARS = 1_000
_EARLIEST = datetime(2017, 7, 14, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LARGE = 1_000_000
"""A body of more bytes takes the parser long enough to hold up the other calls."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Parsed = TypeVar("_Parsed")


class BinanceProvider:
    """Answers bars of every spot symbol, see `spelled_by_binance`; no letter case is folded."""

    name = NAME
    capabilities = Capabilities(
        intervals=frozenset(Interval),
        symbols=None,
        page_bars=_PAGE_BARS,
        earliest=_EARLIEST,
        short_page_ends=False,
        weight=KLINES_WEIGHT,
        asset_types=frozenset({"crypto"}),
        weights={
            "quote": PRICE_WEIGHT,
            "instruments": EXCHANGE_INFO_WEIGHT,
            "limits": EXCHANGE_INFO_WEIGHT,
        },
        grace_s=SETTLE.total_seconds(),
    )

    def __init__(
        self,
        base_url: str = BASE_URL,
        api_key: str = "",
        now: Callable[[], datetime] | None = None,
        *,
        timeout_s: float = 20.0,
    ) -> None:
        headers = {"X-MBX-APIKEY": api_key} if api_key else {}
        self._http = Http(NAME, base_url, headers=headers, secrets=(api_key,), now=now, timeout_s=timeout_s)
        self._usage: Mapping[str, int] = {}
        self._forbidden = 0

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """The first 1 000 bars of [start, end), the open one with `is_final` false; a call of weight 2.

        Fewer are not the end of the range. Whether a bar has closed is told by the venue's clock. Raises as
        `BarProvider.bars`, and `InputError` when the venue refuses the request as such.
        """
        spelled_by_binance(symbol)
        # No bar opens within a millisecond: this goes on after a bar, and none may follow before the end.
        if start.microsecond % 1_000 and _next_open(start, interval) >= end:
            return bars.empty()
        first, last = _ceil_ms(max(start, _EARLIEST)), _ceil_ms(end) - 1
        return bars.empty() if first > last else await self._page(symbol, interval, first, last)

    def instruments(self) -> list[Instrument]:
        """None: only the venue knows, see `list_instruments`."""
        return []

    async def list_instruments(self) -> list[Instrument]:
        """Every spot symbol that the venue lists, a call of weight 20; a halted one is not active."""
        return await self._exchange_info(binance_wire.parse_instruments)

    async def limits(self) -> tuple[Window, ...]:
        """The windows of weight that hold for this IP address, a call of weight 20."""
        return await self._exchange_info(binance_wire.parse_limits)

    async def quote(self, symbol: str) -> Quote:
        """The last price, a call of weight 2; `ts` is the time of the answer, the venue gives no other."""
        asked = {"symbol": spelled_by_binance(symbol)}
        answer = await self._get("/api/v3/ticker/price", asked)
        return await _read(
            answer, lambda price: binance_wire.parse_price(price, symbol, answer.served_at), symbol
        )

    def usage(self) -> Mapping[str, int]:
        """Weight that our IP address has used by window, such as `{"1m": 37}`, as the last answer told it."""
        return self._usage

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def _page(self, symbol: str, interval: Interval, first: int, last: int) -> pa.Table:
        """One answer; the range, in milliseconds, includes both its ends, as the venue has it."""
        params: dict[str, str | int] = {"symbol": spelled_by_binance(symbol), "interval": str(interval)}
        params |= {"limit": _PAGE_BARS, "startTime": first, "endTime": last}
        answer = await self._get("/api/v3/klines", params)
        closed_by = answer.served_at - SETTLE
        page = await _read(
            answer, lambda klines: binance_wire.parse_klines(klines, symbol, interval, closed_by), symbol
        )
        opens_ms = bars.opens(page).astype("datetime64[ms]").astype(int)
        if not ((opens_ms >= first) & (opens_ms <= last)).all():
            raise Malformed(
                f"{NAME} answered bars of {symbol} {interval} outside of the range that was asked for"
            )
        return page

    async def _exchange_info(self, parse: Callable[[Any], _Parsed]) -> _Parsed:
        # Without the sets of permissions, which are most of it.
        return await _read(await self._get("/api/v3/exchangeInfo", {"showPermissionSets": "false"}), parse)

    async def _get(self, path: str, params: Mapping[str, str | int]) -> Answer:
        try:
            answer = await self._http.get(path, params)
        except Throttled as error:
            if error.answer is None:
                raise
            self._note(error.answer)
            raise binance_refusals.throttled(error.answer, str(error)) from None
        self._note(answer)
        self._forbidden = self._forbidden + 1 if answer.status == 403 else 0
        refused: FinSightError | None = binance_refusals.refusal_by_status(answer, self._forbidden)
        if refused is not None:
            raise refused
        return answer

    def _note(self, answer: Answer) -> None:
        self._usage = binance_wire.parse_usage(answer.headers)


async def _read(answer: Answer, parse: Callable[[Any], _Parsed], symbol: str | None = None) -> _Parsed:
    """What the answer holds; raises what it means when it is a refusal."""

    def parsed(document: Any) -> _Parsed:
        if (refused := binance_refusals.refusal_by_code(answer, document, symbol)) is not None:
            raise refused
        return parse(document)

    return (
        await asyncio.to_thread(read, answer, parsed) if len(answer.body) > _LARGE else read(answer, parsed)
    )


def _next_open(moment: datetime, interval: Interval) -> datetime:
    """The first point of the UTC grid after `moment`; days have one, too, around the clock."""
    step = timedelta(seconds=interval.seconds)
    return moment - (moment - _EPOCH) % step + step


def _ceil_ms(moment: datetime) -> int:
    """The first whole millisecond since 1970 at or after `moment`."""
    return -((_EPOCH - moment) // _MILLISECOND)
