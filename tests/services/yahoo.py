"""Yahoo's chart service on loopback: labels, horizons, events, nulls and refusals as they come.

    with yahoo.running(Yahoo(now=clock.now)) as url: ...

Source: answers of query1.finance.yahoo.com as seen until November 2026; prices are float32, widened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.services.serving import serving

DEPTH_DAYS = {"1m": 30, "5m": 60, "15m": 60, "30m": 60, "1h": 730}
"""How far back from now an interval is kept."""
LONGEST_DAYS = {"1m": 8}
"""Longest range of one request."""

Row = tuple[int, float | None, float | None, float | None, float | None, int | None]
"""Label in seconds, then open, high, low, close and volume."""

NEW_YORK: Mapping[str, Any] = {
    "currency": "USD",
    "exchangeName": "NMS",
    "instrumentType": "EQUITY",
    "exchangeTimezoneName": "America/New_York",
}
LONDON: Mapping[str, Any] = {
    **NEW_YORK,
    "currency": "GBp",
    "exchangeName": "LSE",
    "exchangeTimezoneName": "Europe/London",
}
SYDNEY: Mapping[str, Any] = {
    **NEW_YORK,
    "currency": "AUD",
    "exchangeName": "ASX",
    "exchangeTimezoneName": "Australia/Sydney",
}
TOKYO: Mapping[str, Any] = {
    **NEW_YORK,
    "currency": "JPY",
    "exchangeName": "JPX",
    "exchangeTimezoneName": "Asia/Tokyo",
}
BITCOIN: Mapping[str, Any] = {
    "currency": "USD",
    "exchangeName": "CCC",
    "instrumentType": "CRYPTOCURRENCY",
    "exchangeTimezoneName": "UTC",
}


def at(moment: str) -> int:
    """Seconds since 1970 of a moment in UTC, such as `2024-06-03T13:30`."""
    return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())


def flat(moment: str, price: float | None, volume: int | None = 100) -> Row:
    """A row whose four prices are the same."""
    return (at(moment), price, price, price, price, volume)


def document(
    symbol: str,
    granularity: str,
    rows: Sequence[Row],
    meta: Mapping[str, Any] = NEW_YORK,
    events: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A chart as it is answered."""
    result: dict[str, Any] = {"meta": {**meta, "symbol": symbol, "dataGranularity": granularity}}
    quote: dict[str, Any] = {}
    if rows:
        result["timestamp"] = [row[0] for row in rows]
        names = ("open", "high", "low", "close")
        quote = {name: [_float32(row[place]) for row in rows] for place, name in enumerate(names, start=1)}
        quote["volume"] = [row[5] for row in rows]
    if events:
        result["events"] = events
    result["indicators"] = {"quote": [quote]}
    if granularity == "1d":
        result["indicators"]["adjclose"] = [{"adjclose": quote["close"]} if rows else {}]
    return {"chart": {"result": [result], "error": None}}


def refusal(code: str, description: str) -> dict[str, Any]:
    """A chart that is refused."""
    return {"chart": {"result": None, "error": {"code": code, "description": description}}}


def split(moment: str, numerator: int, denominator: int = 1) -> dict[str, Any]:
    """One entry of `events.splits`."""
    ratio = f"{numerator}:{denominator}"
    return {"date": at(moment), "numerator": numerator, "denominator": denominator, "splitRatio": ratio}


def dividend(moment: str, amount: float) -> dict[str, Any]:
    """One entry of `events.dividends`."""
    return {"date": at(moment), "amount": amount}


@dataclass
class Yahoo:
    """The service, what it has, and what it has been asked."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    faults: deque[ASGIApp] = field(default_factory=deque)
    """Each answers one request in the place of the service."""
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    """Symbol and query of every request."""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    metas: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    rows: dict[tuple[str, str], list[Row]] = field(default_factory=dict)
    forgets: set[int] = field(default_factory=set)
    """Labels of rows that are only in answers of up to a week."""
    splits: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    dividends: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def put(self, symbol: str, granularity: str, rows: list[Row], meta: Mapping[str, Any] = NEW_YORK) -> None:
        """Rows of one interval, with prices as Yahoo tells them: divided by all splits."""
        self.metas[symbol] = meta
        self.rows[symbol, granularity] = rows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        symbol = scope["path"].removeprefix("/v8/finance/chart/")
        self.asked.append((symbol, dict(request.query_params)))
        self.headers.append(dict(request.headers))
        answer = self.faults.popleft() if self.faults else self._answer(symbol, request)
        await answer(scope, receive, send)

    def _answer(self, symbol: str, request: Request) -> Response:
        if not request.headers.get("user-agent", "").startswith("Mozilla/"):
            return PlainTextResponse("Too Many Requests\r\n", 429)
        if symbol not in self.metas:
            text = "No data found, symbol may be delisted"
            return JSONResponse(refusal("Not Found", text), 404)
        params = request.query_params
        granularity, start, end = params["interval"], int(params["period1"]), int(params["period2"])
        if error := self._out_of_reach(granularity, start, end):
            return JSONResponse(refusal("Unprocessable Entity", error), 422)
        rows = [row for row in self.rows.get((symbol, granularity), []) if start <= row[0] < end]
        if end - start > 7 * 86_400:
            rows = [row for row in rows if row[0] not in self.forgets]
        events = self._events(symbol, start, end)
        return JSONResponse(document(symbol, granularity, rows, self.metas[symbol], events))

    def _out_of_reach(self, granularity: str, start: int, end: int) -> str:
        days, longest = DEPTH_DAYS.get(granularity), LONGEST_DAYS.get(granularity)
        told = f"{granularity} data not available for startTime={start} and endTime={end}."
        if days and start < self.now().timestamp() - days * 86_400:
            return f"{told} The requested range must be within the last {days} days."
        if longest and end - start > longest * 86_400:
            return f"{told} Only {longest} days worth of {granularity} granularity data are allowed."
        return ""

    def _events(self, symbol: str, start: int, end: int) -> dict[str, Any]:
        kinds = {"splits": self.splits.get(symbol, []), "dividends": self.dividends.get(symbol, [])}
        inside = {
            kind: {str(event["date"]): event for event in told if start <= event["date"] < end}
            for kind, told in kinds.items()
        }
        return {kind: told for kind, told in inside.items() if told}


def _float32(value: float | None) -> float | None:
    return None if value is None else float(np.float32(value))


@contextmanager
def running(service: Yahoo) -> Iterator[str]:
    """The base URL of `service` as long as the context lasts."""
    with serving(service) as url:
        yield url
