"""The gateway of a provider as those see it that outlive it: looked up by name when it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar

import pyarrow as pa

from cluster.errors import NotRunning, ProviderDown
from cluster.market.adjustments import CorporateAction
from cluster.market.intervals import Interval
from cluster.providers import gateway_actor
from cluster.providers.gateway_actor import RemoteGateway
from cluster.providers.protocol import Many, Quote
from cluster.providers.stats import Standing

Answer = TypeVar("Answer")


class LazyGateway:
    """The gateway of a provider, looked up when it is needed, because it may start later or anew.

    Ray's handle follows an actor through its restarts, but not to another one of the same name.
    """

    def __init__(self, provider: str, namespace: str) -> None:
        self._provider = provider
        self._namespace = namespace
        self._gateway: RemoteGateway | None = None

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """See `Gateway.fetch`; `ProviderDown` while the gateway is not running."""
        return await self._ask(lambda gateway: gateway.fetch(symbol, interval, start, end))

    async def fetch_many(
        self,
        symbols: Sequence[str],
        interval: Interval,
        start: datetime,
        end: datetime,
        within_s: float = 60.0,
    ) -> Many:
        """See `Gateway.fetch_many`; errors as those of `fetch`."""
        return await self._ask(lambda gateway: gateway.fetch_many(symbols, interval, start, end, within_s))

    async def quote(self, symbol: str) -> Quote:
        """See `Gateway.quote`; errors as those of `fetch`."""
        return await self._ask(lambda gateway: gateway.quote(symbol))

    async def actions(self, symbol: str, start: datetime, end: datetime) -> list[CorporateAction]:
        """See `Gateway.actions`; errors as those of `fetch`."""
        return await self._ask(lambda gateway: gateway.actions(symbol, start, end))

    async def standing(self) -> Standing:
        """See `Gateway.standing`; errors as those of `fetch`."""
        return await self._ask(lambda gateway: gateway.standing())

    async def _ask(self, question: Callable[[RemoteGateway], Awaitable[Answer]]) -> Answer:
        if self._gateway is None:
            self._gateway = await self._found()
        try:
            return await question(self._gateway)
        except ProviderDown:
            self._gateway = None
            raise

    async def _found(self) -> RemoteGateway:
        connect, provider = gateway_actor.connect, self._provider
        try:
            return await asyncio.to_thread(connect, provider, namespace=self._namespace)
        except NotRunning as error:
            raise ProviderDown(str(error)) from error
