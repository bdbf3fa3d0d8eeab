"""Binance's public REST API on loopback: its paths, parameters, headers, weights, limits and refusals.

A `Binance` is one venue that sees one client address, whoever asks:

    venue = Binance(now=clock.now)
    venue.list_symbol("BTCUSDT", "BTC", "USDT")
    venue.fill("BTCUSDT", "1m", start, end)
    with running(venue) as url:
        venue.outage = faults.html(503)

Source: rest-api.md and errors.md of github.com/binance/binance-spot-api-docs, as of November 2026.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.services.asked import Asked
from tests.services.binance_limits import Refused, WeightLimit
from tests.services.serving import serving

LENGTH_MS = {
    "1s": 1_000,
    "1m": 60_000,
    "3m": 180_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
    "2h": 7_200_000,
    "4h": 14_400_000,
    "6h": 21_600_000,
    "8h": 28_800_000,
    "12h": 43_200_000,
    "1d": 86_400_000,
}
"""The intervals of one length (3d, 1w and 1M are left out), spelled as the venue does: the case counts."""
WEIGHTS = {
    "/api/v3/ping": 1,
    "/api/v3/time": 1,
    "/api/v3/exchangeInfo": 20,
    "/api/v3/klines": 2,
    "/api/v3/ticker/price": 2,
}
_ACCEPTED = {
    "/api/v3/exchangeInfo": {"symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"},
    "/api/v3/klines": {"symbol", "interval", "startTime", "endTime", "timeZone", "limit"},
    "/api/v3/ticker/price": {"symbol", "symbols", "symbolStatus"},
}
_JSON = "application/json;charset=UTF-8"
_SPELLING = re.compile(r"[A-Z0-9._-]{1,20}")

Kline = list[int | str]


@dataclass
class Binance:
    """The venue: what it lists, its bars by (symbol, interval), its faults, and what it has been asked."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    weight: WeightLimit = field(default_factory=WeightLimit)
    faults: deque[ASGIApp] = field(default_factory=deque)
    """Each answers one request in the place of the venue."""
    longest_page: int = 1_000
    """Most bars of an answer, whatever `limit` the client asks for."""
    microseconds: bool = False
    """Whether times are microseconds though nobody asked for them."""
    outage: ASGIApp | None = None
    """Answers every request in the place of the venue, as long as it is set."""
    asked: list[Asked] = field(default_factory=list)
    _symbols: dict[str, dict[str, object]] = field(default_factory=dict)
    _klines: dict[tuple[str, str], dict[int, Kline]] = field(default_factory=dict)

    def list_symbol(
        self, symbol: str, base: str, quote: str, *, status: str = "TRADING", spot: bool = True
    ) -> None:
        """Put `symbol` on the list."""
        self._symbols[symbol] = {
            "symbol": symbol,
            "status": status,
            "baseAsset": base,
            "baseAssetPrecision": 8,
            "quoteAsset": quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
            "icebergAllowed": True,
            "isSpotTradingAllowed": spot,
            "isMarginTradingAllowed": False,
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"}
            ],
            "permissions": [],
            "permissionSets": [["SPOT"]],
        }

    def put(self, symbol: str, interval: str, *klines: Kline) -> None:
        """Add bars, or replace those of the same open time: a revision."""
        of_series = self._klines.setdefault((symbol, interval), {})
        for kline in klines:
            of_series[int(kline[0])] = kline

    def remove(self, symbol: str, interval: str, open_ms: int) -> None:
        """Take one bar out: a hole."""
        del self._klines[symbol, interval][open_ms]

    def fill(
        self, symbol: str, interval: str, start: datetime, end: datetime, *, first: float = 100.0
    ) -> None:
        """A bar for each step of [start, end); number n opens at `first` + n cents, closes a cent higher."""
        length_ms = LENGTH_MS[interval]
        opens = range(to_ms(start), to_ms(end), length_ms)
        self.put(
            symbol,
            interval,
            *(_plain(open_ms, length_ms, first + n / 100) for n, open_ms in enumerate(opens)),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        self.asked.append(Asked.of(request))
        fault = self.faults.popleft() if self.faults else self.outage
        answer = fault or self._answer(request)
        await answer(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if request.url.path not in WEIGHTS:
            return HTMLResponse("<html><head><title>404 Not Found</title></head></html>", 404)
        status, headers = 200, {"Date": format_datetime(self.now(), usegmt=True)}
        try:
            self.weight.count(WEIGHTS[request.url.path], to_ms(self.now()))
            document = self._document(request)
        except Refused as refused:
            status, document = refused.status, {"code": refused.code, "msg": str(refused)}
            if refused.wait_s is not None:
                headers["Retry-After"] = str(refused.wait_s)
        headers |= {"X-MBX-USED-WEIGHT": str(self.weight.used), "x-mbx-used-weight-1m": str(self.weight.used)}
        response = Response(json.dumps(document, separators=(",", ":")), status, media_type=_JSON)
        response.raw_headers += [(name.encode(), value.encode()) for name, value in headers.items()]
        return response

    def _document(self, request: Request) -> object:
        path, params = request.url.path, request.query_params
        unread = len(set(params) - _ACCEPTED.get(path, set()))
        if unread:
            counts = f"read '{len(params) - unread}' parameter(s) but was sent '{len(params)}'"
            raise Refused(400, -1104, f"Not all sent parameters were read; {counts}.")
        if path == "/api/v3/exchangeInfo":
            return self._exchange_info(params)
        if path == "/api/v3/klines":
            asked_us = request.headers.get("x-mbx-time-unit") == "MICROSECOND"
            scale = 1_000 if asked_us or self.microseconds else 1
            return [_in_unit(kline, scale) for kline in self._klines_of(params)]
        if path == "/api/v3/ticker/price":
            return self._price(params)
        return {} if path.endswith("ping") else {"serverTime": to_ms(self.now())}

    def _exchange_info(self, params: QueryParams) -> object:
        symbols = [dict(listed) for listed in self._symbols.values()]
        if params.get("showPermissionSets") == "false":
            for listed in symbols:
                del listed["permissionSets"]
        return {
            "timezone": "UTC",
            "serverTime": to_ms(self.now()),
            "rateLimits": [
                {
                    "rateLimitType": "REQUEST_WEIGHT",
                    "interval": "MINUTE",
                    "intervalNum": 1,
                    "limit": self.weight.limit,
                },
                {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
                {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200_000},
                {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300_000},
            ],
            "exchangeFilters": [],
            "symbols": symbols,
        }

    def _klines_of(self, params: QueryParams) -> list[Kline]:
        symbol, interval = self._symbol(params), params.get("interval")
        if interval not in LENGTH_MS:
            raise Refused(400, -1120, "Invalid interval.")
        low, high = _number(params, "startTime", 0), _number(params, "endTime", 2**62)
        limit = min(_number(params, "limit", 500), self.longest_page)
        if limit < 1:
            raise Refused(400, -1130, "Data sent for parameter 'limit' is not valid.")
        series, now_ms = self._klines.get((symbol, interval), {}), to_ms(self.now())
        opens = sorted(open_ms for open_ms in list(series) if low <= open_ms <= min(high, now_ms))
        return [series[open_ms] for open_ms in (opens[:limit] if "startTime" in params else opens[-limit:])]

    def _price(self, params: QueryParams) -> object:
        symbol, now_ms = self._symbol(params), to_ms(self.now())
        traded = [
            (open_ms, kline[4])
            for (of_symbol, _), series in list(self._klines.items())
            for open_ms, kline in list(series.items())
            if of_symbol == symbol and open_ms <= now_ms
        ]
        return {"symbol": symbol, "price": max(traded)[1]}

    def _symbol(self, params: QueryParams) -> str:
        symbol = params.get("symbol")
        if not symbol:
            message = "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            raise Refused(400, -1102, message)
        if not _SPELLING.fullmatch(symbol):
            legal = "^[A-Z0-9-_.]{1,20}$"
            raise Refused(
                400, -1100, f"Illegal characters found in parameter 'symbol'; legal range is '{legal}'."
            )
        if symbol not in self._symbols:
            raise Refused(400, -1121, "Invalid symbol.")
        return symbol


@contextmanager
def running(venue: ASGIApp) -> Iterator[str]:
    """The base URL of `venue` as long as the context lasts; the answers carry the venue's own `Date`."""
    with serving(venue, dated=False) as url:
        yield url


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return round(moment.timestamp() * 1_000)


def kline(open_ms: int, close_ms: int, prices: tuple[str, str, str, str], volume: str, trades: int) -> Kline:
    """One bar as the venue sends it; `close_ms` is the last millisecond inside."""
    return [open_ms, *prices, volume, close_ms, "0.00000000", trades, "0.00000000", "0.00000000", "0"]


def _plain(open_ms: int, length_ms: int, price: float) -> Kline:
    prices = (f"{price:.8f}", f"{price + 0.02:.8f}", f"{price - 0.02:.8f}", f"{price + 0.01:.8f}")
    return kline(open_ms, open_ms + length_ms - 1, prices, "1.50000000", 3)


def _in_unit(of_ms: Kline, scale: int) -> Kline:
    """The same bar with its times in microseconds when `scale` is 1 000."""
    open_ms, close_ms = int(of_ms[0]), int(of_ms[6])
    return [open_ms * scale, *of_ms[1:6], (close_ms + 1) * scale - 1, *of_ms[7:]]


def _number(params: QueryParams, name: str, otherwise: int) -> int:
    text = params.get(name)
    if text is None:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,20}", text):
        legal = "^[0-9]{1,20}$"
        raise Refused(
            400, -1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."
        )
    return int(text)
