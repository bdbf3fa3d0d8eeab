"""The only way to a provider: budget and breaker before the call, validation and statistics after it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NoReturn

import pyarrow as pa

from cluster import metrics
from cluster.clock import Clock, SystemClock
from cluster.errors import (
    BadBars,
    FinSightError,
    InputError,
    Malformed,
    NotEntitled,
    ProviderDown,
    ProviderError,
    RateLimited,
)
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.providers.allowance import Allowance, OwnBudget
from cluster.providers.breaker import Breaker, BreakerPolicy
from cluster.providers.budget import Window, seconds_per_call
from cluster.providers.health import Health, HealthPolicy
from cluster.providers.page import Page, page_of, tell_rejected
from cluster.providers.protocol import BarProvider, Metered
from cluster.providers.stats import Outcome, ProviderState, ProviderStats, Standing
from cluster.redaction import redact


@dataclass(frozen=True, slots=True)
class GatewayPolicy:
    """Limits of one provider's plan, and how its gateway behaves."""

    budget: tuple[Window, ...] = ()
    timeout_s: float = 30.0
    """For one call, that is one page."""
    concurrency: int = 8
    """Most calls at a time."""
    patience_s: float = 5.0
    """A call waits so long for the budget before it is refused."""
    entitlement_retry_s: float = 86_400.0
    """An interval that the plan did not include is tried again after this."""
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    health: HealthPolicy = field(default_factory=HealthPolicy)


_CLOSEST = {Interval.D1: timedelta(hours=22)}
"""How soon the next bar may open: sessions come closer when the clocks change."""


class Gateway:
    """Fetches whole ranges of checked bars and never asks the provider more than budget and breaker allow.

    A `BarSource`. Rate limit, failure, no data and not entitled have four different effects: the budget
    closes until `retry_at`; the breaker counts and the health falls; nothing; the interval is left alone
    for a day.
    """

    def __init__(
        self,
        provider: BarProvider,
        clock: Clock | None = None,
        policy: GatewayPolicy | None = None,
        allowance: Allowance | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._provider = provider
        self._clock = clock or SystemClock()
        self._policy = policy or GatewayPolicy()
        self._allowance = allowance or OwnBudget(self._policy.budget, self._clock)
        self._sleep = sleep
        self._breaker = Breaker(self._policy.breaker)
        self._health = Health(self._policy.health)
        self._slots = asyncio.Semaphore(self._policy.concurrency)
        self._turn = asyncio.Lock()
        self._not_entitled_until_s: dict[Interval, float] = {}
        self._outcomes: Counter[Outcome] = Counter()
        self._rejected = 0
        self._last_error: tuple[str, datetime] | None = None
        self._last_success_at: datetime | None = None

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """All bars with `start <= ts < end`: `BAR_SCHEMA`, valid, sorted, unique; empty when there are none.

        Raises `RateLimited` (also when our own budget is used up), `NotEntitled`, `InvalidSymbol`,
        `ProviderDown` (also for a time-out or an open breaker), `Malformed` (also when every bar was
        rejected), and `InputError` for an interval that the provider does not offer. An error on a later
        page discards the pages before it.
        """
        self._check(interval, start, end)
        pages, cursor, offer = [], start, self._provider.capabilities
        while cursor < end:
            page = await self._page(symbol, interval, cursor, end)
            pages.append(page.good)
            if page.last is None or (offer.short_page_ends and page.answered < offer.page_bars):
                break
            if page.last + _CLOSEST.get(interval, timedelta(seconds=interval.seconds)) >= end:
                break  # no bar has room after it, so no call is spent on it
            cursor = page.last + timedelta(microseconds=1)
        return bars.concat(pages)

    async def refresh(self) -> None:
        """Learn what others, with whom the budget is shared, have left of it; for `stats`."""
        await self._allowance.refresh()

    def stats(self) -> ProviderStats:
        """The provider's state now."""
        now_s = self._clock.monotonic_s()
        return ProviderStats(
            provider=self._provider.name,
            state=self._state(now_s),
            health_score=self._health.score(now_s),
            latency_p50_ms=self._health.latency_ms(0.50, now_s),
            latency_p95_ms=self._health.latency_ms(0.95, now_s),
            error_rate=self._health.error_rate(now_s),
            budget_left=self._allowance.left(),
            last_error=self._last_error[0] if self._last_error else None,
            last_error_at=self._last_error[1] if self._last_error else None,
            last_success_at=self._last_success_at,
            outcomes={str(outcome): count for outcome, count in self._outcomes.items()},
            rejected_bars=self._rejected,
        )

    async def standing(self) -> Standing:
        """What `router` chooses by."""
        now_s, offer = self._clock.monotonic_s(), self._provider.capabilities
        offer = replace(offer, intervals=offer.intervals - self._off(now_s))
        price_s = seconds_per_call(self._policy.budget, offer.weight)
        return Standing(self._provider.name, offer, price_s, self._state(now_s), self._health.score(now_s))

    def _check(self, interval: Interval, start: datetime, end: datetime) -> None:
        offered = self._provider.capabilities.intervals
        if interval not in offered:
            wanted = ", ".join(sorted(offered))
            raise InputError(f"provider {self._provider.name} offers {wanted}; asked for {interval}")
        if end < start:
            raise InputError(f"the range ends at {end.isoformat()}, before its start {start.isoformat()}")

    async def _page(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> Page:
        async with self._slots:
            await self._admit(interval)
            began_s = self._clock.monotonic_s()
            try:
                checked = await self._call(symbol, interval, start, end)
            except ProviderError as error:
                await self._failed(error, interval, began_s)
            except InputError:
                self._breaker.neutral()
                raise
            await self._answered(checked, began_s)
            return page_of(checked, start, end)

    async def _admit(self, interval: Interval) -> None:
        """Pass, or raise why the provider must not be asked now."""
        now_s, name = self._clock.monotonic_s(), self._provider.name
        if now_s < self._not_entitled_until_s.get(interval, float("-inf")):
            raise NotEntitled(f"the plan of provider {name} does not include {interval}")
        if not self._breaker.allow(now_s):
            retry_at = self._moment(self._breaker.retry_at_s(now_s))
            raise ProviderDown(
                f"provider {name} is down; the breaker stays open until {retry_at.isoformat()}"
            )
        try:
            await self._reserve(now_s + self._policy.patience_s)
        except BaseException as error:
            self._breaker.neutral()
            if isinstance(error, RateLimited):
                self._last_error = (redact(str(error)), self._clock.now())
            raise

    async def _reserve(self, deadline_s: float) -> None:
        """Take the call out of the budget, after a short wait if need be; raises `RateLimited`."""
        async with self._turn:  # who came first goes first
            while wait_s := await self._allowance.reserve(self._provider.capabilities.weight):
                retry_at_s = self._clock.monotonic_s() + wait_s
                if retry_at_s > deadline_s:
                    retry_at, name = self._moment(retry_at_s), self._provider.name
                    raise RateLimited(
                        f"the budget of provider {name} is used up until {retry_at.isoformat()}", retry_at
                    )
                await self._sleep(wait_s)

    async def _call(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> bars.Validated:
        metrics.provider_selected_total.labels(self._provider.name).inc()
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                answer = await self._provider.bars(symbol, interval, start, end)
            checked = bars.validate(answer, self._clock.now())
        except TimeoutError:
            raise ProviderDown(
                f"provider {self._provider.name} did not answer within {self._policy.timeout_s:g} s"
            ) from None
        except BadBars as error:
            raise Malformed(f"provider {self._provider.name}: {error}") from error
        except FinSightError:
            raise
        except Exception as error:  # the breaker must hear of a client that breaks, too
            raise Malformed(
                f"the client of provider {self._provider.name} failed: {type(error).__name__}: {error}"
            ) from error
        if checked.rejected.num_rows and not checked.good.num_rows:
            raise Malformed(
                f"provider {self._provider.name}: no valid bar of {symbol} {interval} among "
                f"{len(checked.rejected)}; the first: {checked.rejected['reason'][0]}"
            )
        return checked

    async def _answered(self, checked: bars.Validated, began_s: float) -> None:
        now_s = self._clock.monotonic_s()
        if checked.good.num_rows:
            self._breaker.success()
            self._health.record(good=True, latency_ms=(now_s - began_s) * 1_000, now_s=now_s)
            self._last_success_at = self._clock.now()
        else:
            self._breaker.neutral()
        if checked.rejected.num_rows:
            self._rejected += len(checked.rejected)
            tell_rejected(self._provider.name, checked.rejected)
        self._count(Outcome.BARS if checked.good.num_rows else Outcome.NO_DATA, began_s, now_s)
        if isinstance(self._provider, Metered):
            await self._allowance.correct(self._provider.usage())

    async def _failed(self, error: ProviderError, interval: Interval, began_s: float) -> NoReturn:
        now_s, outcome = self._clock.monotonic_s(), Outcome.of(error)
        self._last_error = (redact(str(error)), self._clock.now())
        if outcome.is_failure:
            self._breaker.failure(now_s)
            self._health.record(good=False, latency_ms=(now_s - began_s) * 1_000, now_s=now_s)
        else:
            self._breaker.neutral()
        if isinstance(error, RateLimited):
            await self._allowance.close_for((error.retry_at - self._clock.now()).total_seconds())
        if isinstance(error, NotEntitled):
            self._not_entitled_until_s[interval] = now_s + self._policy.entitlement_retry_s
        metrics.provider_errors_total.labels(self._provider.name, outcome).inc()
        self._count(outcome, began_s, now_s)
        raise error

    def _count(self, outcome: Outcome, began_s: float, now_s: float) -> None:
        self._outcomes[outcome] += 1
        metrics.provider_request_ms.observe((now_s - began_s) * 1_000)
        metrics.provider_health_score.labels(self._provider.name).set(self._health.score(now_s))

    def _state(self, now_s: float) -> ProviderState:
        if self._off(now_s) >= self._provider.capabilities.intervals:
            return "NOT_ENTITLED"
        return self._breaker.state(now_s).value

    def _off(self, now_s: float) -> frozenset[Interval]:
        """The intervals that the plan does not include."""
        return frozenset(each for each, until_s in self._not_entitled_until_s.items() if now_s < until_s)

    def _moment(self, at_s: float) -> datetime:
        """The wall-clock time of a second of the monotonic clock."""
        return self._clock.now() + timedelta(seconds=at_s - self._clock.monotonic_s())
