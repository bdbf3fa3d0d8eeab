"""The OpenAPI document, and its two readers served from this machine: nothing is loaded from elsewhere."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.market_schemas import BarsRequest, NewSymbol, SymbolChange
from serve_apps.problems import Problem
from serve_apps.schemas import BackfillRequest, PredictRequest
from serve_apps.services import VERSION

_READ_BY_US: tuple[type[BaseModel], ...] = (
    PredictRequest,
    BackfillRequest,
    BarsRequest,
    NewSymbol,
    SymbolChange,
    Problem,
)
"""Models that FastAPI does not see, because `serve_apps.body` and `serve_apps.problems` handle them."""

# ReDoc would load its logo from its makers' server.
_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; worker-src blob:"
)
_PAGES = frozenset({"/docs", "/redoc"})


def application(**options: Any) -> FastAPI:
    """An empty FastAPI app with /openapi.json, /docs and /redoc."""
    app: FastAPI = FastAPIOffline(
        title="FinSight",
        version=VERSION,
        description="Market data, features and forecasts. Times are UTC, returns natural logarithms.",
        static_url="/docs-assets",
        **options,
    )
    app.openapi = lambda: _document(app)  # type: ignore[method-assign] # FastAPI's own way to extend it
    app.add_middleware(_OwnHostOnly)
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        _, definitions = models_json_schema(
            [(model, "validation") for model in _READ_BY_US], ref_template="#/components/schemas/{model}"
        )
        schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(definitions["$defs"])
    found: dict[str, Any] = app.openapi_schema or {}
    return found


class _OwnHostOnly:
    """Forbids the pages of the documentation to load anything from another host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in _PAGES:
            await self._app(scope, receive, send)
            return

        async def restricted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        await self._app(scope, receive, restricted)
