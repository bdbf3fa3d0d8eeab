"""Alpha Vantage's API on loopback: functions, defaults, labels, and refusals, which all come with a 200.

    with alpha_vantage.running(AlphaVantage(now=clock.now)) as url: ...

Source: alphavantage.co/documentation and texts of answers as users reported them, as of November 2026.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.services.serving import serving

MINUTES = {"1min": 1, "5min": 5, "15min": 15, "30min": 30, "60min": 60}
_PLANS = "You may subscribe to any of the premium plans at https://www.alphavantage.co/premium/"
BURST = (
    "Thank you for using Alpha Vantage! Please consider spreading out your free API requests more sparingly "
    f"(1 request per second). {_PLANS} to lift the free key rate limit (25 requests per day), raise the "
    "per-second burst limit, and instantly unlock all premium endpoints"
)
DAILY = (
    "We have detected your API key as {key} and our standard API rate limit is 25 requests per day. Please "
    "subscribe to any of the premium plans at https://www.alphavantage.co/premium/ to instantly remove all "
    "daily rate limits."
)
PREMIUM = (
    f"Thank you for using Alpha Vantage! This is a premium endpoint. {_PLANS} to instantly unlock all "
    "premium endpoints"
)
BAD_CALL = (
    "Invalid API call. Please retry or visit the documentation (https://www.alphavantage.co/documentation/) "
    "for {function}."
)
BAD_KEY = "the parameter apikey is invalid or missing. Please claim your free API key."
SPLIT = 4
"""Prices are divided by it unless `adjusted=false` is sent."""

_NEW_YORK = ZoneInfo("America/New_York")
_COMPACT = 100
_QUOTE = (
    *("symbol", "open", "high", "low", "price", "volume", "latest trading day"),
    *("previous close", "change", "change percent"),
)
_PRICES = ("open", "high", "low", "close")

Row = tuple[str, str, str, str, str]
"""Open, high, low, close and volume, as written."""


@dataclass
class AlphaVantage:
    """The service with one key, and what it has been asked."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    key: str = "K3YOFTESTS"
    premium: bool = False
    labels: Literal["start", "end"] = "start"
    quota: tuple[int, int] = (1, 25)
    """Calls within a second, and in a day of New York."""
    faults: deque[ASGIApp] = field(default_factory=deque)
    """Each answers one request in the place of the service."""
    asked: list[Mapping[str, str]] = field(default_factory=list)
    _bars: dict[tuple[str, str], dict[datetime, Row]] = field(default_factory=dict)
    _days: dict[str, dict[str, Row]] = field(default_factory=dict)
    _calls: list[datetime] = field(default_factory=list)

    def put_bar(self, symbol: str, interval: str, opens: str, row: Row) -> None:
        """A bar by its open on New York's clock: `2024-06-03 09:30`."""
        self._bars.setdefault((symbol, interval), {})[datetime.fromisoformat(opens)] = row

    def put_day(self, symbol: str, day: str, row: Row) -> None:
        """A daily bar."""
        self._days.setdefault(symbol, {})[day] = row

    def fill(self, symbol: str, interval: str, day: str, *, begin: str = "04:00", end: str = "20:00") -> None:
        """A day's bars, extended hours included; number n opens at 100 + n cents and closes a cent higher."""
        moment, last = (datetime.fromisoformat(f"{day} {at}") for at in (begin, end))
        number = 0
        while moment < last:
            first, then = f"{100 + number / 100:.4f}", f"{100 + (number + 1) / 100:.4f}"
            self.put_bar(symbol, interval, str(moment), (first, then, first, then, str(1_000 + number)))
            moment, number = moment + timedelta(minutes=MINUTES[interval]), number + 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        params = dict(Request(scope, receive).query_params)
        self.asked.append(params)
        answer = self.faults.popleft() if self.faults else self._answer(scope["path"], params)
        await answer(scope, receive, send)

    def _answer(self, path: str, params: Mapping[str, str]) -> Response:
        if path != "/query":
            return PlainTextResponse("Not Found", 404)
        document = self._refusal(params)
        if document is None and params.get("datatype") == "csv":
            return PlainTextResponse(
                "timestamp,open,high,low,close,volume\r\n", media_type="application/x-download"
            )
        return JSONResponse(document or self._document(params))

    def _refusal(self, params: Mapping[str, str]) -> object | None:
        if params.get("apikey") != self.key:
            return {"Information": BAD_KEY}
        now, (a_second, a_day) = self.now(), self.quota
        if sum(now - call < timedelta(seconds=1) for call in self._calls) >= a_second:
            return {"Information": BURST}
        today = now.astimezone(_NEW_YORK).date()
        if sum(call.astimezone(_NEW_YORK).date() == today for call in self._calls) >= a_day:
            return {"Information": DAILY.format(key=self.key)}
        self._calls.append(now)
        return None

    def _document(self, params: Mapping[str, str]) -> object:
        function, symbol = params.get("function", ""), params.get("symbol", "")
        if function == "GLOBAL_QUOTE":
            return {"Global Quote": self._quote(symbol)}
        if function == "TIME_SERIES_DAILY" and symbol in self._days:
            return self._daily(symbol, params.get("outputsize", "compact"))
        if function == "TIME_SERIES_INTRADAY" and (symbol, params.get("interval", "")) in self._bars:
            return self._intraday(symbol, params)
        return {"Error Message": BAD_CALL.format(function=function)}

    def _intraday(self, symbol: str, params: Mapping[str, str]) -> object:
        interval, month, size = params["interval"], params.get("month"), params.get("outputsize", "compact")
        rows = self._bars[symbol, interval]
        if params.get("extended_hours") == "false":
            rows = {at: row for at, row in rows.items() if time(9, 30) <= at.time() < time(16, 0)}
        if month:
            rows = {at: row for at, row in rows.items() if f"{at:%Y-%m}" == month}
        shift = timedelta(minutes=MINUTES[interval] if self.labels == "end" else 0)
        divisor = 1 if params.get("adjusted") == "false" else SPLIT
        series = {
            str(at + shift): _numbered(row, divisor)
            for at, row in sorted(rows.items(), reverse=True)[: _rows(size)]
        }
        meta = {
            "1. Information": f"Intraday ({interval}) open, high, low, close prices and volume",
            "2. Symbol": symbol,
            "3. Last Refreshed": next(iter(series), ""),
            "4. Interval": interval,
            "5. Output Size": "Full size" if size == "full" else "Compact",
            "6. Time Zone": "US/Eastern",
        }
        return {"Meta Data": meta, f"Time Series ({interval})": series}

    def _daily(self, symbol: str, size: str) -> object:
        if size == "full" and not self.premium:
            return {"Information": PREMIUM}
        newest = sorted(self._days[symbol].items(), reverse=True)[: _rows(size)]
        meta = {
            "1. Information": "Daily Prices (open, high, low, close) and Volumes",
            "2. Symbol": symbol,
            "3. Last Refreshed": newest[0][0],
            "4. Output Size": "Full size" if size == "full" else "Compact",
            "5. Time Zone": "US/Eastern",
        }
        return {"Meta Data": meta, "Time Series (Daily)": {day: _numbered(row, 1) for day, row in newest}}

    def _quote(self, symbol: str) -> dict[str, str]:
        if symbol not in self._days:
            return {}
        day, (open_, high, low, close, volume) = max(self._days[symbol].items())
        values = (symbol, open_, high, low, close, volume, day, close, "0.0000", "0.0000%")
        pairs = zip(_QUOTE, values, strict=True)
        return {f"{n:02}. {name}": value for n, (name, value) in enumerate(pairs, 1)}


@contextmanager
def running(service: AlphaVantage) -> Iterator[str]:
    """The base URL of `service` as long as the context lasts."""
    with serving(service) as url:
        yield url


def _rows(size: str) -> int | None:
    return None if size == "full" else _COMPACT


def _numbered(row: Row, divisor: int) -> dict[str, str]:
    prices = {f"{n}. {name}": f"{float(row[n - 1]) / divisor:.4f}" for n, name in enumerate(_PRICES, 1)}
    return {**prices, "5. volume": row[4]}
