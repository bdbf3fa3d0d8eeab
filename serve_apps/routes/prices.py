"""GET /stocks/{symbol}/price."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from http import HTTPStatus

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from cluster.backfill.plan import settled_end
from cluster.backfill.scan import Scan
from cluster.errors import UnknownSymbol
from cluster.market import calendars
from cluster.market.instants import to_moment
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.protocol import Quote
from cluster.storage import newest_bar
from cluster.storage.newest_bar import NewestBar
from serve_apps import problems
from serve_apps.market_schemas import Price, SymbolPath
from serve_apps.services import Services

_TICK = timedelta(microseconds=1)
_LONGEST_CLOSURE = timedelta(days=31)


class PriceRoutes:
    """The newest price that is stored of a symbol."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def router(self) -> APIRouter:
        """The one route."""
        router = APIRouter(tags=["market data"])
        router.add_api_route(
            "/stocks/{symbol}/price", self.price, responses=problems.documented(404, 422, 503)
        )
        return router

    async def price(self, symbol: SymbolPath) -> Price:
        """The newest price, how old it is, and whether a later one should be there.

        That is the newest stored bar; when the calendar has a later one, or none is stored, a provider is
        asked for its last price, within its limits and for two seconds at most.
        """
        try:
            instrument = await self._services.instrument(symbol)
        except UnknownSymbol as error:
            raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from None
        bars = await newest_bar.of_each_interval(await self._services.database(), symbol)
        stored = await asyncio.to_thread(_newest, instrument, bars, self._services.clock.now())
        if stored is not None and not stored.stale:
            return stored
        quote = await self._services.quotes.latest(instrument)
        if quote is not None and (stored is None or quote.ts > stored.as_of):
            return await asyncio.to_thread(_of_quote, instrument, quote, self._services.clock.now())
        if stored is None:
            raise HTTPException(
                HTTPStatus.NOT_FOUND, f"{symbol} has no bars yet; `finsight backfill {symbol}` fetches them."
            )
        return stored


def _of_quote(instrument: Instrument, quote: Quote, now: datetime) -> Price:
    return Price(
        symbol=instrument.symbol,
        price=quote.price,
        currency=quote.currency or instrument.currency,
        kind="quote",
        ts=quote.ts,
        interval=None,
        is_final=None,
        source=quote.source,
        as_of=quote.ts,
        age_seconds=max(0.0, (now - quote.ts).total_seconds()),
        stale=_has_later(instrument, Interval.M1, quote.ts, now),
    )


def _newest(instrument: Instrument, bars: list[NewestBar], now: datetime) -> Price | None:
    """The price that held last; of equals that of the shortest bar."""
    if not bars:
        return None
    held = [(_held_at(instrument, bar), bar) for bar in bars]
    as_of, bar = max(held, key=lambda each: each[0])
    return Price(
        symbol=instrument.symbol,
        price=bar.close,
        currency=instrument.currency,
        kind="bar",
        ts=bar.ts,
        interval=bar.interval,
        is_final=bar.is_final,
        source=bar.source,
        as_of=as_of,
        age_seconds=max(0.0, (now - as_of).total_seconds()),
        stale=_is_stale(instrument, bar, now),
    )


def _held_at(instrument: Instrument, bar: NewestBar) -> datetime:
    """When the close of the bar was the price: at its end, or when it was written while it still ran."""
    sessions = calendars.sessions(instrument.calendar, bar.ts, bar.ts + _TICK)
    if bar.interval.is_daily and len(sessions):
        end = to_moment(sessions.closes[0])
    else:
        end = bar.ts + timedelta(seconds=bar.interval.seconds)
    return end if bar.is_final else min(end, bar.ingested_at)


def _is_stale(instrument: Instrument, bar: NewestBar, now: datetime) -> bool:
    """Whether the calendar has a later bar that has closed, and had its time to arrive."""
    start = bar.ts + _TICK if bar.is_final else bar.ts  # one that still runs is itself awaited
    return _has_later(instrument, bar.interval, start, now)


def _has_later(instrument: Instrument, interval: Interval, start: datetime, now: datetime) -> bool:
    """Whether a bar opens at `start` or later that has closed, and had its time to arrive."""
    end = min(settled_end(now, interval, now, Scan().grace_s), start + _LONGEST_CLOSURE)
    return end > start and len(calendars.expected_opens(instrument.calendar, interval, start, end)) > 0
