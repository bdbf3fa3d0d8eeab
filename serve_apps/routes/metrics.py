"""GET /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from prometheus_client.core import Metric
from starlette.responses import Response

from cluster import metrics
from cluster.storage.database import Database
from serve_apps import state_metrics
from serve_apps.services import Services

_STATEMENT_TIMEOUT_S = 1.0
_READ_TIMEOUT_S = 4.0


class MetricsRoutes:
    """The Prometheus page of the whole node; what it reads from the database has a pool of its own.

    So a slow statement is cut off after a second, and takes no connection from predictions.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._database: Database | None = None
        self._state = metrics.StateCollector(self._read_state)
        self._rendering = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def router(self) -> APIRouter:
        """The one route."""
        router = APIRouter(tags=["health"])
        text: dict[int | str, dict[str, Any]] = {
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
        }
        router.add_api_route("/metrics", self.metrics, response_class=Response, responses=text)
        return router

    async def metrics(self) -> Response:
        """Every metric of FinSight in the Prometheus text format."""
        self._loop = asyncio.get_running_loop()
        async with self._rendering:  # two scrapes at once share the state that the first one read
            page = await asyncio.to_thread(metrics.render_page, [self._state])
        return Response(page, media_type=metrics.CONTENT_TYPE)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._database is not None:
            await self._database.close()

    def _read_state(self) -> Iterable[Metric]:
        # Called in the rendering thread, while the pool belongs to the event loop.
        assert self._loop is not None  # noqa: S101 - set by the only caller of render_page
        return asyncio.run_coroutine_threadsafe(self._read(), self._loop).result(_READ_TIMEOUT_S)

    async def _read(self) -> Iterable[Metric]:
        if self._database is None:
            dsn = self._services.settings.require_database_url()
            self._database = await Database.open(dsn, max_size=1, statement_timeout_s=_STATEMENT_TIMEOUT_S)
        return await state_metrics.read(self._database)
