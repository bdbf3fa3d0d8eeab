"""The gateway of a provider as those see it that outlive it: looked up by name when it is needed."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pyarrow as pa

from cluster.errors import NotRunning, ProviderDown
from cluster.market.intervals import Interval
from cluster.providers import gateway_actor
from cluster.providers.stats import Standing


class LazyGateway:
    """The gateway of a provider, looked up when it is needed, because it may start later or anew.

    Ray's handle follows an actor through its restarts, but not to another one of the same name.
    """

    def __init__(self, provider: str, namespace: str) -> None:
        self._provider = provider
        self._namespace = namespace
        self._gateway: gateway_actor.RemoteGateway | None = None

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """See `Gateway.fetch`; `ProviderDown` while the gateway is not running."""
        if self._gateway is None:
            self._gateway = await self._found()
        try:
            return await self._gateway.fetch(symbol, interval, start, end)
        except ProviderDown:
            self._gateway = None
            raise

    async def standing(self) -> Standing:
        """See `Gateway.standing`; errors as those of `fetch`."""
        if self._gateway is None:
            self._gateway = await self._found()
        try:
            return await self._gateway.standing()
        except ProviderDown:
            self._gateway = None
            raise

    async def _found(self) -> gateway_actor.RemoteGateway:
        connect, provider = gateway_actor.connect, self._provider
        try:
            return await asyncio.to_thread(connect, provider, namespace=self._namespace)
        except NotRunning as error:
            raise ProviderDown(str(error)) from error
