"""GET /models, /models/{name}, /models/{name}/versions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path

from cluster.errors import NotRunning
from serve_apps import paging, problems
from serve_apps.paging import Cursor, Limit
from serve_apps.schemas import Model, ModelDetail, ModelPage, ModelVersion, Signature, VersionPage
from serve_apps.services import Services
from training import registered, registry
from training.registry import CHAMPION

_Answer = TypeVar("_Answer")

_FRESH_S = 2.0
_TIMEOUT_S = 10.0

Name = Annotated[str, Path(max_length=64, pattern=r"^[\w.-]+$", examples=["finsight-1d"])]


class ModelRoutes:
    """Reads the model registry; answers may be `_FRESH_S` seconds old, as each costs several requests.

    One read at a time, in a thread of its own: when the registry hangs, nothing else waits for a thread.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._answers: dict[tuple[str, ...], tuple[float, Any]] = {}
        self._one_asks = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry")

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(tags=["models"])
        one = problems.documented(404, 422, 503)
        router.add_api_route("/models", self.models, responses=problems.documented(422, 503))
        router.add_api_route("/models/{name}", self.model, responses=one)
        router.add_api_route("/models/{name}/versions", self.versions, responses=one)
        return router

    async def models(self, cursor: Cursor = None, limit: Limit = 100) -> ModelPage:
        """All registered models."""
        found = await self._read(registry.models)
        items, next_cursor = paging.page(found, lambda model: model.name, cursor, limit)
        return ModelPage(items=[Model(**self._facts(model)) for model in items], next_cursor=next_cursor)

    async def model(self, name: Name) -> ModelDetail:
        """One model, with the facts of its champion."""
        versions = await self._read(registry.versions, name)
        found = await self._read(registry.model, name)
        wanted = found.aliases.get(CHAMPION, found.latest)
        version = next((_version(each) for each in versions if each.version == wanted), None)
        return ModelDetail(**self._facts(found), version=version)

    async def versions(self, name: Name, cursor: Cursor = None, limit: Limit = 100) -> VersionPage:
        """All versions of a model, newest first."""
        found = await self._read(registry.versions, name)
        items, next_cursor = paging.page(found, lambda each: each.version, cursor, limit)
        return VersionPage(items=[_version(each) for each in items], next_cursor=next_cursor)

    async def _read(self, ask: Callable[..., _Answer], *args: str) -> _Answer:
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._one_asks:
                return await self._fresh(ask, *args)
        except TimeoutError:
            raise NotRunning(f"The model registry does not answer within {_TIMEOUT_S:g} s.") from None

    async def _fresh(self, ask: Callable[..., _Answer], *args: str) -> _Answer:
        key = (ask.__name__, *args)
        until, answer = self._answers.get(key, (0.0, None))
        if time.monotonic() >= until:
            uri = self._services.settings.require_mlflow_tracking_uri()
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, lambda: ask(*args, uri))
            self._answers[key] = (time.monotonic() + _FRESH_S, answer)
        fresh: _Answer = answer
        return fresh

    def _facts(self, model: registered.RegisteredModel) -> dict[str, Any]:
        current = self._services.slot.current
        serving = current.version if current is not None and current.name == model.name else None
        return {
            "name": model.name,
            "description": model.description,
            "aliases": dict(model.aliases),
            "latest": model.latest,
            "serving": serving,
        }


def _version(found: registered.ModelVersion) -> ModelVersion:
    return ModelVersion(
        version=found.version,
        aliases=list(found.aliases),
        created_at=found.created_at,
        signature=Signature(
            feature_names=list(found.feature_names),
            window=found.window,
            horizon=found.horizon,
            interval=found.interval,
            coverage=found.coverage,
        ),
        symbols=list(found.symbols),
        training_range=dict(found.training_range),
        metrics=dict(found.metrics),
    )
