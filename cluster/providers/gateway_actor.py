"""Ray shell around a gateway: one detached actor a provider, and the handle by which others ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from cluster import detached, logs
from cluster.errors import FinSightError, NotRunning, ProviderDown
from cluster.market.adjustments import CorporateAction
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers import plans, registry
from cluster.providers.gateway import GatewayPolicy
from cluster.providers.protocol import Many, Quote
from cluster.providers.renewable import RenewableGateway
from cluster.providers.stats import ProviderStats, Standing
from cluster.redaction import redact

log = logs.get(__name__)

NAMESPACE = "finsight"

Answer = TypeVar("Answer")


def actor_name(provider: str) -> str:
    """The name of a provider's gateway actor within `NAMESPACE`."""
    return f"gateway:{provider}"


class GatewayActor:
    """A gateway in a process of its own. Its memory (budget, breaker, health) starts anew after a crash."""

    def __init__(
        self,
        provider: str,
        options: Mapping[str, object],
        policy: GatewayPolicy,
        shared_budget_url: str | None = None,
    ) -> None:
        terms = detached.kept((options, policy, shared_budget_url))
        self._gateway = RenewableGateway(provider, *terms)
        self._learning = asyncio.get_running_loop().create_task(self._learn_limits())

    async def reload(
        self, options: Mapping[str, object], policy: GatewayPolicy, shared_budget_url: str | None = None
    ) -> None:
        """See `RenewableGateway.renew`."""
        renewed = await self._gateway.renew(options, policy, shared_budget_url)
        await detached.keep((options, policy, shared_budget_url))
        if renewed:
            self._learning.cancel()  # what the old one learns is about limits that are replaced
            self._learning = asyncio.get_running_loop().create_task(self._learn_limits())

    async def _learn_limits(self) -> None:
        try:
            async with self._gateway.use() as gateway:
                await gateway.learn_limits()
        except FinSightError as error:  # the limits of the plan hold, and the answers correct them
            log.warning("limits_not_told", reason=redact(str(error)))

    async def drain(self, grace_s: float = 30.0) -> None:
        """See `RenewableGateway.drain`."""
        await self._gateway.drain(grace_s)

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """See `Gateway.fetch`."""
        async with self._gateway.use() as gateway:
            return await gateway.fetch(symbol, interval, start, end)

    async def fetch_many(
        self, symbols: Sequence[str], interval: Interval, start: datetime, end: datetime, within_s: float
    ) -> Many:
        """See `Gateway.fetch_many`."""
        async with self._gateway.use() as gateway:
            return await gateway.fetch_many(symbols, interval, start, end, within_s)

    async def quote(self, symbol: str) -> Quote:
        """See `Gateway.quote`."""
        async with self._gateway.use() as gateway:
            return await gateway.quote(symbol)

    async def actions(self, symbol: str, start: datetime, end: datetime) -> list[CorporateAction]:
        """See `Gateway.actions`."""
        async with self._gateway.use() as gateway:
            return await gateway.actions(symbol, start, end)

    async def instruments(self) -> list[Instrument]:
        """See `Gateway.instruments`."""
        async with self._gateway.use() as gateway:
            return await gateway.instruments()

    async def stats(self) -> ProviderStats:
        """See `Gateway.stats`."""
        async with self._gateway.use() as gateway:
            await gateway.refresh()
            return gateway.stats()

    async def standing(self) -> Standing:
        """See `Gateway.standing`."""
        async with self._gateway.use() as gateway:
            return await gateway.standing()


def start(
    provider: str,
    options: Mapping[str, object],
    policy: GatewayPolicy | None = None,
    *,
    shared_budget_url: str | None = None,
    env: Mapping[str, str] | None = None,
    namespace: str = NAMESPACE,
) -> RemoteGateway:
    """Start the provider's gateway, or find the one that runs; needs a connection to Ray.

    `policy`: by default the provider's plan. `shared_budget_url`: the Redis whose users share the budget.
    `env` is the environment of the actor's process, such as `PROMETHEUS_MULTIPROC_DIR`. Raises `ConfigError`
    here, and not in the actor, when the provider or its options are wrong.
    """
    registry.create(provider, options)
    policy = policy or plans.policy(provider, options)
    handle = detached.start(
        GatewayActor,
        actor_name(provider),
        (provider, dict(options), policy, shared_budget_url),
        env=env,
        namespace=namespace,
        max_concurrency=64,
    )
    return RemoteGateway(handle, provider=provider)


def connect(provider: str, *, namespace: str = NAMESPACE, timeout_s: float = 120.0) -> RemoteGateway:
    """The gateway that runs; raises `NotRunning` when there is none."""
    try:
        handle = ray.get_actor(actor_name(provider), namespace=namespace)
    except ValueError:
        raise NotRunning(
            f"the gateway of provider {provider!r} is not running; start it with: finsight up"
        ) from None
    return RemoteGateway(handle, provider=provider, timeout_s=timeout_s)


class RemoteGateway:
    """A `BarSource` in front of the handle of a `GatewayActor`; it can be sent to other Ray processes."""

    def __init__(self, handle: Any, *, provider: str, timeout_s: float = 120.0) -> None:
        self.provider = provider
        self._handle = handle
        self._timeout_s = timeout_s

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """See `Gateway.fetch`; `ProviderDown` also when the actor does not answer within `timeout_s`."""
        return await self._ask(self._handle.fetch.remote(symbol, interval, start, end))

    async def fetch_many(
        self,
        symbols: Sequence[str],
        interval: Interval,
        start: datetime,
        end: datetime,
        within_s: float = 60.0,
    ) -> Many:
        """See `Gateway.fetch_many`; errors as those of `fetch`, `ProviderDown` `within_s` later."""
        answer = self._handle.fetch_many.remote(symbols, interval, start, end, within_s)
        return await self._ask(answer, self._timeout_s + within_s)

    async def quote(self, symbol: str) -> Quote:
        """See `Gateway.quote`; errors as those of `fetch`."""
        quote: Quote = await self._ask(self._handle.quote.remote(symbol))
        return quote

    async def actions(self, symbol: str, start: datetime, end: datetime) -> list[CorporateAction]:
        """See `Gateway.actions`; errors as those of `fetch`."""
        told: list[CorporateAction] = await self._ask(self._handle.actions.remote(symbol, start, end))
        return told

    async def instruments(self) -> list[Instrument]:
        """See `Gateway.instruments`; errors as those of `fetch`."""
        listed: list[Instrument] = await self._ask(self._handle.instruments.remote())
        return listed

    async def stats(self) -> ProviderStats:
        """See `Gateway.stats`; errors as those of `fetch`."""
        stats: ProviderStats = await self._ask(self._handle.stats.remote())
        return stats

    async def standing(self) -> Standing:
        """See `Gateway.standing`; errors as those of `fetch`."""
        standing: Standing = await self._ask(self._handle.standing.remote())
        return standing

    async def _ask(self, answer: Awaitable[Answer], timeout_s: float | None = None) -> Answer:
        timeout_s = timeout_s or self._timeout_s
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            raise ProviderDown(
                f"the gateway of provider {self.provider} did not answer within {timeout_s:g} s"
            ) from None
        except RayTaskError as error:
            if isinstance(error.cause, FinSightError):
                raise error.cause from None
            raise ProviderDown(f"the gateway of provider {self.provider} failed: {error.cause!r}") from error
        except RayError as error:
            raise ProviderDown(f"the gateway of provider {self.provider} is out of reach: {error}") from error
