"""A gateway whose key, limits and other options change while calls are under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from cluster.clock import Clock, SystemClock
from cluster.providers import plans, registry
from cluster.providers.allowance import Allowance, OwnBudget
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.providers.protocol import BarProvider
from cluster.providers.shared_budget import SharedBudget

_POLL_S = 0.05


@dataclass(frozen=True)
class _Terms:
    """What a gateway is made of."""

    options: Mapping[str, object]
    policy: GatewayPolicy
    shared_budget_url: str | None

    @property
    def budget_url(self) -> str | None:
        """Where the budget is shared; nowhere without limits, so that such a provider needs no Redis."""
        return self.shared_budget_url if self.policy.budget else None

    def account(self, provider: str) -> tuple[str, str | None]:
        """Calls of the same account count together."""
        return plans.scope(provider, self.options), self.budget_url


class _Line:
    """A gateway, its client, and how many calls are under way."""

    def __init__(self, provider: BarProvider, gateway: Gateway) -> None:
        self.gateway = gateway
        self.calls = 0
        self._provider = provider

    async def close(self) -> None:
        close = getattr(self._provider, "close", None)  # those that compute their bars have no connections
        if close is not None:
            await close()


class RenewableGateway:
    """The gateway of one provider. After `renew` calls take a new one, and those under way end as they began.

    The budget goes on with what was used of it, unless the calls count for another key now. Breaker, health
    and refusals begin anew: they were about what was there before.
    """

    def __init__(
        self,
        provider: str,
        options: Mapping[str, object],
        policy: GatewayPolicy,
        shared_budget_url: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._provider, self._clock = provider, clock or SystemClock()
        self._terms = _Terms(dict(options), policy, shared_budget_url)
        self._allowance = self._allowance_of(self._terms)
        self._line = self._line_of(self._terms, self._allowance)
        self._calls = 0

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Gateway]:
        """The gateway of now, for one call."""
        line = self._line
        line.calls += 1
        self._calls += 1
        try:
            yield line.gateway
        finally:
            line.calls -= 1
            self._calls -= 1
            if line is not self._line and not line.calls:
                await line.close()

    async def renew(
        self, options: Mapping[str, object], policy: GatewayPolicy, shared_budget_url: str | None = None
    ) -> bool:
        """Go by these from the next call on; whether they are others. ConfigError keeps the old ones."""
        terms, before = _Terms(dict(options), policy, shared_budget_url), self._line
        if terms == self._terms:
            return False
        goes_on = terms.account(self._provider) == self._terms.account(self._provider)
        allowance = self._allowance if goes_on else self._allowance_of(terms)
        line = self._line_of(terms, allowance)
        allowance.renew(policy.budget)
        self._terms, self._allowance, self._line = terms, allowance, line
        if not before.calls:
            await before.close()
        return True

    async def drain(self, grace_s: float) -> None:
        """Return when no call is under way, or after `grace_s`."""
        deadline_s = self._clock.monotonic_s() + grace_s
        while self._calls and self._clock.monotonic_s() < deadline_s:  # noqa: ASYNC110 - not worth an event
            await asyncio.sleep(_POLL_S)

    def _allowance_of(self, terms: _Terms) -> Allowance:
        if not terms.budget_url:
            return OwnBudget(terms.policy.budget, self._clock)
        redis, scope = Redis.from_url(terms.budget_url), plans.scope(self._provider, terms.options)
        return SharedBudget(redis, scope, terms.policy.budget, self._clock)

    def _line_of(self, terms: _Terms, allowance: Allowance) -> _Line:
        client = registry.create(self._provider, terms.options)
        return _Line(client, Gateway(client, self._clock, terms.policy, allowance))
