"""GET and POST /market-data/ohlcv."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from cluster.errors import InputError
from cluster.market.adjustments import Adjusted
from cluster.market.universe_csv import require_calendar
from cluster.storage import bars as stored_bars
from cluster.storage import corporate_actions
from serve_apps import bar_formats, body, negotiation, paging, problems
from serve_apps.market_schemas import BarPage, BarsRequest
from serve_apps.services import Services

CURSOR_HEADER = "X-Next-Cursor"

_TICK = timedelta(microseconds=1)
_PATH = "/market-data/ohlcv"
_TYPES = (
    f"JSON, CSV (`{bar_formats.CSV}`), an Arrow stream (`{bar_formats.ARROW}`) "
    f"or Parquet (`{bar_formats.PARQUET}`)"
)

Accept = Annotated[str | None, Header(description=f"{_TYPES}; JSON by default.")]


@dataclass(frozen=True, slots=True)
class _Page:
    bars: pa.Table
    next_cursor: str | None


class BarRoutes:
    """Reads stored bars, as many as MAX_DATA_POINTS at once."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def router(self) -> APIRouter:
        """The path, once for each method."""
        router = APIRouter(tags=["market data"])
        router.add_api_route(
            _PATH, self.by_query, responses={**_answers(), **problems.documented(406, 409, 422, 503)}
        )
        router.add_api_route(
            _PATH,
            self.by_body,
            methods=["POST"],
            responses={**_answers(), **problems.documented(406, 408, 409, 413, 415, 422, 503)},
            openapi_extra=body.documented(BarsRequest),
        )
        return router

    async def by_query(self, asked: Annotated[BarsRequest, Query()], accept: Accept = None) -> Response:
        """Stored bars, oldest first, as JSON, CSV, Arrow or Parquet.

        A bar of 5m or 1h that is not stored is made of its minutes; its source is `rollup`.
        Other types than JSON tell the next page in the header `X-Next-Cursor`.
        """
        with problems.of_query():
            return await self._answer(asked, accept)

    async def by_body(self, request: Request, accept: Accept = None) -> Response:
        """The same bars for a JSON body."""
        asked = await body.read(request, BarsRequest, self._services.settings.max_body_bytes)
        return await self._answer(asked, accept)

    async def _answer(self, asked: BarsRequest, accept: str | None) -> Response:
        media_type = negotiation.choose(accept, bar_formats.MEDIA_TYPES)
        instrument = await self._services.instrument(asked.symbol)
        page = await self._page(asked, instrument.calendar)
        headers = {"Vary": "Accept"}
        if media_type == bar_formats.JSON:
            envelope = asked.model_dump(include={"symbol", "timeframe", "adjusted"})
            parts = bar_formats.json_parts({**envelope, "next_cursor": page.next_cursor}, page.bars)
            return StreamingResponse(parts, media_type=media_type, headers=headers)
        if page.next_cursor is not None:
            headers[CURSOR_HEADER] = page.next_cursor
        made = await asyncio.to_thread(bar_formats.file, media_type, page.bars)
        return Response(made, media_type=media_type, headers=headers)

    async def _page(self, asked: BarsRequest, calendar: str) -> _Page:
        limit = self._limit(asked.limit)
        newest = asked.order == "desc"
        start, end = _range_left(asked)
        database = await self._services.database()
        # One more tells whether there is a next page.
        found = await stored_bars.read(
            database, asked.symbol, asked.timeframe, start, end, limit + 1, newest=newest, with_rollups=True
        )
        more = len(found) > limit
        if more and asked.limit is None:
            raise InputError(
                f"the range holds more than {limit} bars (setting MAX_DATA_POINTS); ask for a shorter one, "
                "or give `limit` and follow `next_cursor`",
                "#/limit",
            )
        shown = await self._adjusted(found.slice(int(more and newest), limit), calendar, asked.adjusted)
        if newest:
            shown = shown.take(np.arange(len(shown))[::-1])
        return _Page(shown, _cursor(shown) if more else None)

    async def _adjusted(self, bars: pa.Table, calendar: str, adjusted: Adjusted) -> pa.Table:
        if adjusted is Adjusted.NONE:
            return bars
        await asyncio.to_thread(require_calendar, calendar)  # the first look at a calendar takes a second
        database, now = await self._services.database(), self._services.clock.now()
        return await corporate_actions.adjusted(database, bars, calendar, adjusted, as_of=now)

    def _limit(self, asked: int | None) -> int:
        most = self._services.settings.max_data_points
        if asked is not None and asked > most:
            raise InputError(
                f"limit {asked}: expected at most {most} (setting MAX_DATA_POINTS); follow `next_cursor` for "
                "more",
                "#/limit",
            )
        return asked or most


def _answers() -> dict[int | str, dict[str, Any]]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    files = {media: binary for media in bar_formats.MEDIA_TYPES if media != bar_formats.JSON}
    return {HTTPStatus.OK.value: {"model": BarPage, "content": files}}


def _range_left(asked: BarsRequest) -> tuple[datetime | None, datetime | None]:
    """The range without what earlier pages have answered."""
    if asked.cursor is None:
        return asked.start, asked.end
    last = paging.as_moment(paging.decoded(asked.cursor))
    if asked.order == "desc":
        return asked.start, last if asked.end is None else min(last, asked.end)
    after = last + _TICK
    return after if asked.start is None else max(after, asked.start), asked.end


def _cursor(shown: pa.Table) -> str:
    return paging.encoded(shown["ts"][-1].as_py().astimezone(UTC).isoformat())
