"""What the routes of one replica share: settings, database, the model and the thread it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib import metadata
from typing import ParamSpec, TypeVar

from cluster.clock import Clock, SystemClock
from cluster.errors import UnknownSymbol
from cluster.market.symbols import Instrument
from cluster.settings import Settings
from cluster.storage import calendar_overrides, universe
from cluster.storage.database import Database
from serve_apps.model_slot import ModelSlot
from serve_apps.quotes import Quotes, QuoteSource
from training import registry
from training.predictor import Predictor

VERSION = metadata.version("finsight")

_FIRST_LOOK_S = 20.0

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class Services:
    """Made once a replica. The database is opened at its first use, so that a replica is ready without it."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None, on_ray: bool = False) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.on_ray = on_ray
        self.slot = _slot(settings)
        self.quotes = Quotes(self._gateways, self.clock)
        self._gateway_of: dict[str, QuoteSource] = {}
        self._database: Database | None = None
        self._opening = asyncio.Lock()
        # One thread: the members are single-threaded and a second one would only take cores from other
        # replicas; a thread at all, so that health checks are answered while a large request is computed.
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def database(self) -> Database:
        """The pool; raises `StorageError` while the server is out of reach, and then tries again."""
        if self._database is None:
            async with self._opening:
                if self._database is None:
                    self._database = await Database.open(self.settings.require_database_url())
        await calendar_overrides.refresh(self._database)
        return self._database

    async def instrument(self, symbol: str) -> Instrument:
        """What the universe says about `symbol`; raises `UnknownSymbol`."""
        found = await universe.get(await self.database(), symbol)
        if found is None:
            raise UnknownSymbol(
                f"Symbol {symbol} is not in the universe. `finsight symbols` lists those that are.",
                "#/symbol",
            )
        return found

    def _gateways(self) -> Mapping[str, QuoteSource]:
        """Those of the providers that the settings name now; none outside of Ray."""
        if not self.on_ray:
            return {}
        from serve_apps import on_ray

        for name in self.settings.active_providers:
            self._gateway_of.setdefault(name, on_ray.gateway(name))
        return {name: self._gateway_of[name] for name in self.settings.active_providers}

    async def compute(
        self, function: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Answer:
        """Run CPU work in the model's thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._computing, lambda: function(*args, **kwargs))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the champion until the replica stops, then let go of everything.

        A replica that takes another's place should not answer "no model": it is ready when the first look at
        the registry is over, or has taken `_FIRST_LOOK_S`.
        """
        following = asyncio.create_task(self.slot.follow(), name="model slot")
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.slot.looked.wait(), _FIRST_LOOK_S)
            yield
        finally:
            following.cancel()
            await asyncio.wait([following])
            self._computing.shutdown()
            if self._database is not None:
                await self._database.close()


def _slot(settings: Settings) -> ModelSlot:
    name, folder = settings.model_name, settings.model_dir
    if folder is not None:
        return ModelSlot(lambda: str(folder), lambda _: registry.load(folder), settings.model_poll_s)

    def champion() -> str | None:
        return registry.champion(name, settings.require_mlflow_tracking_uri())

    def load(version: str) -> Predictor:
        return registry.load(
            name,
            tracking_uri=settings.require_mlflow_tracking_uri(),
            alias_or_version=version,
            cache_dir=settings.home / "models",
        )

    return ModelSlot(champion, load, settings.model_poll_s)
