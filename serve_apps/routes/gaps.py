"""GET /gaps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Annotated

from fastapi import APIRouter, Query

from cluster.backfill import missing
from cluster.backfill.missing import Missing, Wanted
from cluster.errors import InputError
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument, Tier
from cluster.market.universe_csv import require_calendar
from cluster.storage import universe
from cluster.storage.database import Database
from serve_apps import paging, problems
from serve_apps.market_schemas import GapPage, MissingBars, MissingState
from serve_apps.paging import Cursor, Limit
from serve_apps.schemas import Moment, SymbolName
from serve_apps.services import Services

_SYMBOLS_AT_ONCE = 1_000
_SLOTS_AT_ONCE = 4_000_000
"""Bars that one request may look at, counted as if no market ever closed: about a second of a core."""


@dataclass(frozen=True, slots=True)
class _Reached:
    """How far earlier pages have come: everything up to `symbol`, of which only what starts up to `start`."""

    symbol: str = ""
    start: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Search:
    """The found gaps of some symbols, and how far that is."""

    found: Sequence[Missing]
    reached: _Reached
    is_last: bool


class GapRoutes:
    """What is missing, by the exchange's calendar, and why."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def router(self) -> APIRouter:
        """The one route."""
        router = APIRouter(tags=["market data"])
        router.add_api_route("/gaps", self.gaps, responses=problems.documented(422, 503))
        return router

    async def gaps(
        self,
        interval: Annotated[Interval, Query(description="Length of the bars.")] = Interval.D1,
        symbol: Annotated[SymbolName | None, Query(description="Default: all active ones.")] = None,
        tier: Annotated[Tier | None, Query(description="Only symbols of this tier.")] = None,
        state: Annotated[MissingState | None, Query(description="Only these; default: both.")] = None,
        start: Annotated[
            Moment | None, Query(description="Default: the oldest stored bar of each symbol.")
        ] = None,
        end: Annotated[Moment | None, Query(description="Not included; default: now.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> GapPage:
        """The bars that should be stored and are not, with their cause, by symbol and time.

        A bar counts as missing from a minute after its end on. Symbols that have no bar and that nobody
        watches are left out unless `start` is given. The range holds at most 4 000 000 bars of a symbol.
        """
        reached = _reached(cursor)
        with problems.of_query():
            _require_ascending(start, end)
            instruments = await self._instruments(symbol, tier, reached)
            search = await self._search(instruments, interval, start, end, reached)
        items = [each for each in map(_item, search.found) if state in (None, each.state)]
        if len(items) > limit:
            last = items[limit - 1]
            return GapPage(items=items[:limit], next_cursor=_cursor(_Reached(last.symbol, last.start)))
        return GapPage(items=items, next_cursor=None if search.is_last else _cursor(search.reached))

    async def _instruments(
        self, symbol: str | None, tier: Tier | None, reached: _Reached
    ) -> list[Instrument]:
        """Those to look at, in order; one more than can be looked at when there are more."""
        if symbol is not None:
            instrument = await self._services.instrument(symbol)
            with _due_to("symbol"):  # of many it would be left out
                await asyncio.to_thread(require_calendar, instrument.calendar)
            return [instrument]
        database = await self._services.database()
        first = await universe.get(database, reached.symbol) if reached.start else None
        rest = await universe.listed(database, tier=tier, after=reached.symbol, limit=_SYMBOLS_AT_ONCE + 1)
        return [first, *rest] if first else rest

    async def _search(
        self,
        instruments: Sequence[Instrument],
        interval: Interval,
        start: datetime | None,
        end: datetime | None,
        reached: _Reached,
    ) -> _Search:
        database, now = await self._services.database(), self._services.clock.now()
        some = instruments[:_SYMBOLS_AT_ONCE]
        starts = await missing.since(database, some, interval, start)
        wanted = missing.settled(some, starts, interval, end or now, now)
        now_wanted = wanted[: _affordable(wanted, interval)]
        with _due_to("start"):  # the end is never after now, so no calendar ends before it
            found = await _found(database, now_wanted, interval, reached)
        if len(now_wanted) < len(wanted):
            return _Search(found, _Reached(now_wanted[-1].instrument.symbol), is_last=False)
        last = some[-1].symbol if some else ""
        return _Search(found, _Reached(last), is_last=len(some) == len(instruments))


async def _found(
    database: Database, wanted: Sequence[Wanted], interval: Interval, reached: _Reached
) -> list[Missing]:
    found = await missing.find(database, wanted, interval)
    start = reached.start
    if start is None:
        return found
    return [each for each in found if each.instrument.symbol != reached.symbol or each.gap.start > start]


def _require_ascending(start: datetime | None, end: datetime | None) -> None:
    if start is not None and end is not None and end <= start:
        raise InputError(f"end {end.isoformat()} must be after start {start.isoformat()}", "#/end")


@contextmanager
def _due_to(parameter: str) -> Iterator[None]:
    """Errors of input inside that point at nothing point at `parameter`."""
    try:
        yield
    except InputError as error:
        if error.pointer == "#":
            error.pointer = f"#/{parameter}"
        raise


def _affordable(wanted: Sequence[Wanted], interval: Interval) -> int:
    """How many of `wanted`, the first of which must not be too long."""
    step = timedelta(seconds=interval.seconds)
    slots = list(accumulate((each.end - each.start) // step for each in wanted))
    if slots and slots[0] > _SLOTS_AT_ONCE:
        first = wanted[0]
        raise InputError(
            f"{first.instrument.symbol} may have {slots[0]} bars of {interval} from "
            f"{first.start.isoformat()} to {first.end.isoformat()}; at most {_SLOTS_AT_ONCE} are looked at. "
            "Give a later `start` or an earlier `end`.",
            "#/start",
        )
    return sum(count <= _SLOTS_AT_ONCE for count in slots)


def _item(found: Missing) -> MissingBars:
    return MissingBars(
        symbol=found.instrument.symbol,
        interval=found.interval,
        tier=found.instrument.tier,
        start=found.gap.start,
        end=found.gap.end,
        missing=found.gap.missing,
        state="known" if found.cause.is_known else "open",
        cause=found.cause.name,
        provider=found.cause.provider,
        detail=found.cause.detail,
    )


def _cursor(reached: _Reached) -> str:
    start = reached.start.astimezone(UTC).isoformat() if reached.start else ""
    return paging.encoded(f"{reached.symbol} {start}")


def _reached(cursor: str | None) -> _Reached:
    if cursor is None:
        return _Reached()
    symbol, _, start = paging.decoded(cursor).partition(" ")
    return _Reached(paging.as_symbol(symbol), paging.as_moment(start) if start else None)
