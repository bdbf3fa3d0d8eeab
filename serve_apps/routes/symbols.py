"""GET /symbols, POST and PATCH /symbols/{symbol}, GET /universe/versions."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cluster.errors import InputError
from cluster.market.symbols import Instrument, Tier
from cluster.market.universe_csv import default_calendar, require_calendar
from cluster.storage import universe, universe_versions
from serve_apps import body, paging, problems
from serve_apps.auth import admin_only, author
from serve_apps.market_schemas import (
    NewSymbol,
    SymbolChange,
    SymbolEntry,
    SymbolPage,
    SymbolPath,
    UniversePage,
    UniverseVersion,
)
from serve_apps.paging import Cursor, Limit
from serve_apps.schemas import Moment
from serve_apps.services import Services


class SymbolRoutes:
    """The symbol universe: everybody may read it, administrators change it."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(tags=["symbols"])
        read = problems.documented(422, 503)
        router.add_api_route("/symbols", self.listed, responses=read)
        router.add_api_route("/universe/versions", self.versions, responses=read)
        write = APIRouter(dependencies=[Depends(admin_only(self._services))])
        write.add_api_route(
            "/symbols/{symbol}",
            self.add,
            methods=["POST"],
            status_code=HTTPStatus.CREATED,
            response_model=SymbolEntry,
            responses=problems.documented(401, 403, 408, 409, 413, 415, 422, 503),
            openapi_extra=body.documented(NewSymbol),
        )
        write.add_api_route(
            "/symbols/{symbol}",
            self.change,
            methods=["PATCH"],
            responses=problems.documented(401, 403, 404, 408, 413, 415, 422, 503),
            openapi_extra=body.documented(SymbolChange),
        )
        router.include_router(write)
        return router

    async def listed(
        self,
        tier: Annotated[Tier | None, Query(description="Only of this tier.")] = None,
        everything: Annotated[bool, Query(alias="all", description="Inactive ones too.")] = False,  # noqa: FBT002 - a query parameter
        as_of: Annotated[
            Moment | None,
            Query(
                description="The universe as it was then: with symbols that were changed, set inactive or "
                "deleted later, and in the tiers that they had. A time to come counts as now. Default: now."
            ),
        ] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> SymbolPage:
        """The symbols of the universe with their tiers, by name."""
        after = paging.as_symbol(paging.decoded(cursor)) if cursor is not None else ""
        found = await universe.listed(
            await self._services.database(),
            tier=tier,
            active_only=not everything,
            after=after,
            limit=limit + 1,
            as_of=as_of,
        )
        items, next_cursor = paging.head(found, lambda each: each.symbol, limit)
        return SymbolPage(items=[_entry(each) for each in items], next_cursor=next_cursor)

    async def add(self, symbol: SymbolPath, request: Request) -> Response:
        """Add a symbol. Its history comes with `POST /ops/backfill`."""
        new = await body.read(request, NewSymbol, self._services.settings.max_body_bytes)
        calendar = await _known(new.calendar or default_calendar(new.asset_type))
        instrument = Instrument(symbol, calendar=calendar, **new.model_dump(exclude={"calendar"}))
        if not await universe.add(await self._services.database(), instrument, by=author(request)):
            raise HTTPException(
                HTTPStatus.CONFLICT,
                f"{symbol} is in the universe already; PATCH /symbols/{symbol} changes it.",
            )
        return Response(
            _entry(instrument).model_dump_json(), HTTPStatus.CREATED, media_type="application/json"
        )

    async def change(self, symbol: SymbolPath, request: Request) -> SymbolEntry:
        """Change the fields that are given, and answer the symbol as it then is."""
        wanted = await body.read(request, SymbolChange, self._services.settings.max_body_bytes)
        if wanted.calendar is not None:
            await _known(wanted.calendar)
        database = await self._services.database()
        changed = await universe.change(database, symbol, wanted.changes(), by=author(request))
        if changed is None:
            raise HTTPException(
                HTTPStatus.NOT_FOUND,
                f"Symbol {symbol} is not in the universe; POST /symbols/{symbol} adds it.",
            )
        return _entry(changed)

    async def versions(self, cursor: Cursor = None, limit: Limit = 100) -> UniversePage:
        """The versions of the universe, newest first."""
        before = paging.as_number(paging.decoded(cursor)) if cursor is not None else None
        found = await universe_versions.listed(await self._services.database(), limit + 1, before)
        items, next_cursor = paging.head(found, lambda each: str(each.id), limit)
        return UniversePage(
            items=[UniverseVersion.model_validate(each, from_attributes=True) for each in items],
            next_cursor=next_cursor,
        )


def _entry(instrument: Instrument) -> SymbolEntry:
    return SymbolEntry(**asdict(instrument))


async def _known(calendar: str) -> str:
    # In a thread: the first look at a calendar takes a second.
    try:
        return await asyncio.to_thread(require_calendar, calendar)
    except InputError as error:
        error.pointer = "#/calendar"
        raise
