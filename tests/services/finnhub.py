"""Finnhub's REST API on loopback: candles, quotes, its rate limit headers, and its refusals.

    with finnhub.running(Finnhub(now=clock.now)) as url: ...

Source: finnhub.io/docs/api and issues of github.com/finnhubio/Finnhub-API, as of November 2026.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.services.asked import Asked
from tests.services.serving import serving

RESOLUTIONS = ("1", "5", "15", "30", "60", "D", "W", "M")
NO_ACCESS = "You don't have access to this resource."
NO_TOKEN = "API limit reached. Please sign up for a free account to continue using the API."
LIMIT_REACHED = "API limit reached. Please try again later. Remaining Limit: 0"
INVALID_KEY = "Invalid API key."
UNKNOWN_QUOTE = {"c": 0, "d": None, "dp": None, "h": 0, "l": 0, "o": 0, "pc": 0, "t": 0}

_MONTH = timedelta(days=31)

Candle = tuple[float | None, float, float, float, float]
"""Open, high, low, close and volume."""


@dataclass
class Finnhub:
    """The service with one key, and what it has been asked."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    key: str = "t0k3nft3sts"
    premium: bool = True
    """Whether the plan includes candles."""
    tells_splits: bool = True
    """Whether it includes splits, too."""
    splits: dict[str, dict[str, float]] = field(default_factory=dict)
    """New shares for an old one by symbol and date; daily candles are to be put divided by them."""
    a_minute: int = 60
    faults: deque[ASGIApp] = field(default_factory=deque)
    """Each answers one request in the place of the service."""
    asked: list[Asked] = field(default_factory=list)
    quotes: dict[str, Mapping[str, float]] = field(default_factory=dict)
    _candles: dict[tuple[str, str], dict[int, Candle]] = field(default_factory=dict)
    _calls: deque[datetime] = field(default_factory=deque)

    def put(self, symbol: str, resolution: str, label: datetime, candle: Candle) -> None:
        """Add a candle, or replace that of the same label."""
        self._candles.setdefault((symbol, resolution), {})[int(label.timestamp())] = candle

    def fill(self, symbol: str, resolution: str, start: datetime, end: datetime) -> None:
        """A candle for each step of [start, end); number n opens at 100 + n cents, closes a cent higher."""
        for number in range((end - start) // timedelta(minutes=int(resolution))):
            low = round(100 + number / 100, 2)
            high = round(low + 0.01, 2)
            label = start + number * timedelta(minutes=int(resolution))
            self.put(symbol, resolution, label, (low, high, low, high, 1_000 + number))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        asked = Asked.of(request)
        self.asked.append(asked)
        answer = self.faults.popleft() if self.faults else self._answer(asked)
        await answer(scope, receive, send)

    def _answer(self, asked: Asked) -> Response:
        token = asked.headers.get("x-finnhub-token") or asked.params.get("token")
        if not token:
            return PlainTextResponse(NO_TOKEN, 429)
        if token != self.key:
            return JSONResponse({"error": INVALID_KEY}, 401)
        remaining = self._count()
        if remaining < 0:
            return JSONResponse({"error": LIMIT_REACHED}, 429, self._headers(0))
        status, document = self._document(asked)
        return JSONResponse(document, status, self._headers(remaining))

    def _count(self) -> int:
        """What is left of the minute after this call; below zero when it is refused."""
        now = self.now()
        while self._calls and now - self._calls[0] >= timedelta(minutes=1):
            self._calls.popleft()
        if len(self._calls) >= self.a_minute:
            return -1
        self._calls.append(now)
        return self.a_minute - len(self._calls)

    def _headers(self, remaining: int) -> dict[str, str]:
        reset = int(self._calls[0].timestamp()) + 60
        told = {"Limit": self.a_minute, "Remaining": remaining, "Reset": reset}
        headers = {f"X-Ratelimit-{name}": str(value) for name, value in told.items()}
        return {**headers, "Date": format_datetime(self.now(), usegmt=True)}

    def _document(self, asked: Asked) -> tuple[int, object]:
        if asked.path == "/api/v1/quote":
            return 200, self.quotes.get(asked.params.get("symbol", ""), UNKNOWN_QUOTE)
        if asked.path not in ("/api/v1/stock/candle", "/api/v1/stock/split"):
            return 404, {"error": "Not found"}
        if not self.premium or (asked.path.endswith("split") and not self.tells_splits):
            return 403, {"error": NO_ACCESS}
        if asked.path.endswith("split"):
            return 200, self._told_splits(asked.params)
        if asked.params.get("resolution") not in RESOLUTIONS:
            return 422, {"error": "Wrong resolution"}
        return 200, self._series(asked.params)

    def _told_splits(self, params: Mapping[str, str]) -> object:
        told = self.splits.get(params["symbol"], {})
        return [
            {"symbol": params["symbol"], "date": day, "fromFactor": 1, "toFactor": factor}
            for day, factor in told.items()
            if params["from"] <= day <= params["to"]
        ]

    def _series(self, params: Mapping[str, str]) -> object:
        first, last = int(params["from"]), int(params["to"])
        if params["resolution"].isdigit():  # only a month of intraday candles is returned at a time
            first = max(first, last - int(_MONTH.total_seconds()))
        known = self._candles.get((params["symbol"], params["resolution"]), {})
        labels = [label for label in sorted(known) if first <= label <= last]
        if not labels:
            return {"s": "no_data"}
        columns = zip(*(known[label] for label in labels), strict=True)
        return {
            **{name: list(column) for name, column in zip("ohlcv", columns, strict=True)},
            "s": "ok",
            "t": labels,
        }


@contextmanager
def running(service: Finnhub) -> Iterator[str]:
    """The base URL of `service`, with the version of its API, as long as the context lasts."""
    with serving(service, dated=False) as url:
        yield f"{url}/api/v1"
