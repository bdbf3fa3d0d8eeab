"""The only way to a provider: budget and breaker before the call, validation and statistics after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from math import isfinite
from typing import TypeVar

import pyarrow as pa

from cluster import metrics
from cluster.clock import Clock, SystemClock
from cluster.errors import (
    BadBars,
    FinSightError,
    InputError,
    Interrupted,
    Malformed,
    ProviderDown,
    ProviderError,
    RateLimited,
)
from cluster.market import bars
from cluster.market.adjustments import CorporateAction
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.allowance import Allowance, OwnBudget
from cluster.providers.breaker import BreakerPolicy
from cluster.providers.budget import Window, narrowed, seconds_per_call
from cluster.providers.condition import Condition
from cluster.providers.entitlement import Wanted
from cluster.providers.fetch_many import one_by_one, portions
from cluster.providers.health import HealthPolicy
from cluster.providers.page import Page, joined, page_of, tell_rejected
from cluster.providers.protocol import (
    Acting,
    BarProvider,
    Errand,
    Forgetful,
    Limited,
    Listing,
    Many,
    ManyBars,
    Metered,
    Quote,
    Quoting,
    Spelling,
    Step,
    Stepping,
)
from cluster.providers.stats import ProviderStats, Standing

Answer = TypeVar("Answer")
Checked = TypeVar("Checked")


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
    """What the plan did not include is tried again after this, see `Entitlement`."""
    refusal_retry_s: float = 3_600.0
    """A provider that does not accept our key or address is tried again after this."""
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    health: HealthPolicy = field(default_factory=HealthPolicy)


_CLOSEST = {Interval.D1: timedelta(hours=22)}
"""How soon the next bar may open: sessions come closer when the clocks change."""

_CLOCKS_DIFFER = timedelta(minutes=5)
"""Between ours and a provider's."""


class Gateway:
    """Fetches whole ranges of checked bars and never asks the provider more than budget and breaker allow.

    A `BarSource`. A rate limit closes the budget until `retry_at`; what else outcomes do: see `Condition`.
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
        self._condition = Condition(
            provider.name,
            self._clock,
            self._policy.breaker,
            self._policy.health,
            entitlement_retry_s=self._policy.entitlement_retry_s,
            refusal_retry_s=self._policy.refusal_retry_s,
        )
        self._slots = asyncio.Semaphore(self._policy.concurrency)
        self._turn = asyncio.Lock()
        self._told_limits: tuple[Window, ...] = ()
        self._rejected = 0

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """All bars with `start <= ts < end`: `BAR_SCHEMA`, valid, sorted, unique; empty when there are none.

        What was rejected travels along with its reasons, see `bars.rejected_of`.
        Raises `RateLimited` (also when our own budget is used up), `NotEntitled`, `InvalidSymbol`,
        `Unauthorized`, `Restricted`, `OutOfHorizon`, `ProviderDown` (also for a time-out or an open breaker),
        `Malformed` (also when every bar was rejected), and `InputError` for an interval that the provider
        does not offer. An error after a part was answered is told by `Interrupted`, which carries that part.
        """
        self._check(interval, start, end)
        pages: list[Page] = []
        cursor = start
        try:
            while cursor < end and (step := self._step(symbol, interval, cursor, end)) is not None:
                page = await self._page(symbol, interval, step)
                pages += [page, *await self._forgotten(symbol, interval, step, page)]
                cursor = self._after(page, interval, step, end)
        except ProviderError as error:
            if cursor > start:
                raise Interrupted(joined(pages), cursor, error) from error
            raise
        return joined(pages)

    async def fetch_many(
        self,
        symbols: Sequence[str],
        interval: Interval,
        start: datetime,
        end: datetime,
        within_s: float = 60.0,
    ) -> Many:
        """As `fetch`, of many symbols: in one call where the provider can, else a call a symbol.

        What `fetch` would raise is told for each symbol. One that was not asked within `within_s` is
        `RateLimited`. `InputError` for an interval that the provider does not offer.
        """
        self._check(interval, start, end)
        if not isinstance(self._provider, ManyBars):
            fetch = partial(self.fetch, interval=interval, start=start, end=end)
            lanes = self._policy.concurrency
            return await one_by_one(fetch, symbols, lanes=lanes, within_s=within_s, clock=self._clock)
        some = portions(symbols, start, end, interval.seconds, self._provider.capabilities.page_bars)
        answers = [await self._many(self._provider, each, interval, start, end) for each in some]
        errors = {symbol: error for answer in answers for symbol, error in answer.errors.items()}
        return Many(bars.concat(answer.table for answer in answers), errors)

    async def quote(self, symbol: str) -> Quote:
        """The last price; errors as those of `fetch`, `InputError` when the provider tells none."""
        if not isinstance(self._provider, Quoting):
            raise InputError(f"provider {self._provider.name} tells no prices")
        if isinstance(self._provider, Spelling):
            self._provider.spelled(symbol)  # before the budget is charged for a call that is not made
        return await self._errand("quote", symbol, partial(self._provider.quote, symbol), self._checked_quote)

    async def actions(self, symbol: str, start: datetime, end: datetime) -> list[CorporateAction]:
        """Splits and dividends with ex-dates from `start` to `end`; errors as those of `quote`."""
        if not isinstance(self._provider, Acting):
            raise InputError(f"provider {self._provider.name} tells no splits and dividends")
        return await self._errand("actions", symbol, partial(self._provider.actions, symbol, start, end))

    async def instruments(self) -> list[Instrument]:
        """All instruments that the provider lists; errors as those of `quote`."""
        if isinstance(self._provider, Listing):
            return await self._errand("instruments", None, self._provider.list_instruments)
        return self._provider.instruments()

    async def learn_limits(self) -> None:
        """Narrow the budget to the limits that the provider tells, if it does; errors as those of `quote`."""
        if isinstance(self._provider, Limited):
            self._told_limits = await self._errand("limits", None, self._provider.limits)
            self._allowance.renew(self._windows())

    def _windows(self) -> tuple[Window, ...]:
        return narrowed(self._policy.budget, self._told_limits)

    async def refresh(self) -> None:
        """Learn what others, with whom the budget is shared, have left of it; for `stats`."""
        await self._allowance.refresh()

    def stats(self) -> ProviderStats:
        """The provider's state now."""
        told = self._condition
        return ProviderStats(
            provider=self._provider.name,
            state=told.state(self._provider.capabilities.intervals),
            health_score=told.score(),
            latency_p50_ms=told.latency_ms(0.50),
            latency_p95_ms=told.latency_ms(0.95),
            error_rate=told.error_rate(),
            budget_left=self._allowance.left(),
            last_error=told.last_error[0] if told.last_error else None,
            last_error_at=told.last_error[1] if told.last_error else None,
            last_success_at=told.last_success_at,
            outcomes={str(outcome): count for outcome, count in told.outcomes.items()},
            rejected_bars=self._rejected,
            set_aside=told.set_aside(),
        )

    async def standing(self) -> Standing:
        """What `router` chooses by."""
        offer, off = self._provider.capabilities, self._condition.off()
        kinds: dict[Errand, type] = {"quote": Quoting, "actions": Acting}
        errands = frozenset(name for name, kind in kinds.items() if isinstance(self._provider, kind))
        return Standing(
            self._provider.name,
            replace(offer, intervals=offer.intervals - off),
            seconds_per_call(self._windows(), offer.weight),
            self._condition.state(offer.intervals),
            self._condition.score(),
            errands - off,
        )

    def _check(self, interval: Interval, start: datetime, end: datetime) -> None:
        offered = self._provider.capabilities.intervals
        if interval not in offered:
            wanted = ", ".join(sorted(offered))
            raise InputError(f"provider {self._provider.name} offers {wanted}; asked for {interval}")
        if end < start:
            raise InputError(f"the range ends at {end.isoformat()}, before its start {start.isoformat()}")

    def _step(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> Step | None:
        """What the next answer spans."""
        if isinstance(self._provider, Stepping):
            return self._provider.step(symbol, interval, start, end)
        return Step(start, end)

    def _after(self, page: Page, interval: Interval, step: Step, end: datetime) -> datetime:
        """Where the range goes on after `page`; `end` when nothing can follow."""
        offer = self._provider.capabilities
        if page.answered < offer.page_bars and isinstance(self._provider, Stepping):
            return step.end
        if page.last is None or (offer.short_page_ends and page.answered < offer.page_bars):
            return end
        told_until = min(end, self._clock.now() - timedelta(seconds=offer.grace_s))
        if page.last + _CLOSEST.get(interval, timedelta(seconds=interval.seconds)) >= told_until:
            return end  # no bar has room after it, so no call is spent on it
        return page.last + timedelta(microseconds=1)

    async def _page(self, symbol: str, interval: Interval, step: Step) -> Page:
        call = partial(self._provider.bars, symbol, interval, step.start, step.end)

        def check(answer: pa.Table) -> bars.Validated:
            return self._checked(answer, symbol, interval)

        weight = self._provider.capabilities.weight
        checked = await self._ask(interval, symbol, call, check, weight, step.calls)
        self._note_rejected(checked)
        return page_of(checked, step.start, step.end)

    async def _forgotten(self, symbol: str, interval: Interval, step: Step, page: Page) -> list[Page]:
        """The answer to one more call for what `page` lacks; none when nothing is worth one."""
        if not isinstance(self._provider, Forgetful):
            return []
        alone = self._provider.forgotten(symbol, interval, step, page.opens)
        if alone is None:
            return []
        try:
            return [await self._page(symbol, interval, alone)]
        except ProviderError:  # it stays a hole, and the search for gaps asks for it again
            return []

    def _note_rejected(self, checked: bars.Validated) -> None:
        if checked.rejected.num_rows:
            self._rejected += len(checked.rejected)
            tell_rejected(self._provider.name, checked.rejected)

    async def _many(
        self, provider: ManyBars, symbols: Sequence[str], interval: Interval, start: datetime, end: datetime
    ) -> Many:
        refused: dict[str, Exception] = {}

        async def call() -> pa.Table:
            answer = await provider.many(symbols, interval, start, end)
            refused.update(answer.errors)
            return answer.table

        def check(answer: pa.Table) -> bars.Validated:
            return self._checked(answer, f"{len(symbols)} symbols", interval)

        try:
            checked = await self._ask(interval, None, call, check, self._provider.capabilities.weight)
        except (ProviderError, InputError) as error:
            return Many(bars.empty(), dict.fromkeys(symbols, error))
        self._note_rejected(checked)
        return Many(bars.between(checked.good, start, end), refused)

    async def _errand(
        self,
        errand: Errand,
        symbol: str | None,
        call: Callable[[], Awaitable[Answer]],
        check: Callable[[Answer], Answer] = lambda answer: answer,
    ) -> Answer:
        offer = self._provider.capabilities
        return await self._ask(errand, symbol, call, check, offer.weights.get(errand, offer.weight))

    async def _ask(
        self,
        wanted: Wanted,
        symbol: str | None,
        call: Callable[[], Awaitable[Answer]],
        check: Callable[[Answer], Checked],
        weight: int,
        calls: int = 1,
    ) -> Checked:
        """The checked answer to `call`, which is made only when budget, breaker and plan allow it."""
        async with self._slots:
            await self._admit(wanted, symbol, weight, calls)
            began_s = self._clock.monotonic_s()
            try:
                checked = await self._call(call, check)
            except (ProviderError, InputError) as error:
                told = self._condition.failed(error, wanted, symbol, began_s)
                if isinstance(error, RateLimited):
                    wait_s = (error.retry_at - self._clock.now()).total_seconds()
                    await self._allowance.close_for(wait_s)
                if told is error:
                    raise
                raise told from None
            empty = isinstance(checked, bars.Validated) and not checked.good.num_rows
            self._condition.answered(wanted, symbol, began_s, empty=empty)
            if isinstance(self._provider, Metered):
                await self._allowance.correct(self._provider.usage())
            return checked

    async def _admit(self, wanted: Wanted, symbol: str | None, weight: int, calls: int) -> None:
        """Pass, or raise why the provider must not be asked now."""
        deadline_s = self._clock.monotonic_s() + self._policy.patience_s
        self._condition.admit(wanted, symbol)
        try:
            for _ in range(calls):
                await self._reserve(weight, deadline_s)
        except BaseException as error:
            self._condition.not_asked(error)
            raise

    async def _reserve(self, weight: int, deadline_s: float) -> None:
        """Take the call out of the budget, after a short wait if need be; raises `RateLimited`."""
        async with self._turn:  # who came first goes first
            while wait_s := await self._allowance.reserve(weight):
                retry_at_s = self._clock.monotonic_s() + wait_s
                if retry_at_s > deadline_s:
                    retry_at, name = self._condition.moment(retry_at_s), self._provider.name
                    raise RateLimited(
                        f"the budget of provider {name} is used up until {retry_at.isoformat()}", retry_at
                    )
                await self._sleep(wait_s)

    async def _call(
        self, call: Callable[[], Awaitable[Answer]], check: Callable[[Answer], Checked]
    ) -> Checked:
        metrics.provider_selected_total.labels(self._provider.name).inc()
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                answer = await call()
            return check(answer)
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

    def _checked(self, answer: pa.Table, symbol: str, interval: Interval) -> bars.Validated:
        checked = bars.validate(answer, self._clock.now())
        if checked.rejected.num_rows and not checked.good.num_rows:
            raise Malformed(
                f"provider {self._provider.name}: no valid bar of {symbol} {interval} among "
                f"{len(checked.rejected)}; the first: {checked.rejected['reason'][0]}"
            )
        return checked

    def _checked_quote(self, quote: Quote) -> Quote:
        latest = self._clock.now() + _CLOCKS_DIFFER
        if not (isfinite(quote.price) and quote.price > 0 and quote.ts <= latest):
            raise Malformed(
                f"provider {self._provider.name}: {quote.price} at {quote.ts.isoformat()} is no price of "
                f"{quote.symbol} of now"
            )
        return quote
