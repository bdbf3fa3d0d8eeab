"""What the answers of one provider have told of it: whether to ask it now, and how well it does."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import structlog

from cluster import metrics
from cluster.clock import Clock
from cluster.errors import (
    Banned,
    InputError,
    NotEntitled,
    ProviderDown,
    ProviderError,
    RateLimited,
    Refused,
)
from cluster.market.intervals import Interval
from cluster.providers.breaker import Breaker, BreakerPolicy
from cluster.providers.entitlement import Entitlement, Wanted
from cluster.providers.health import Health, HealthPolicy
from cluster.providers.stats import Outcome, ProviderState, SetAside, reason_of
from cluster.redaction import redact

_log = structlog.get_logger(__name__)


class Condition:
    """Every outcome has an effect of its own.

    A failure counts for the breaker, and the health falls; a ban opens the breaker until it ends; after a
    refusal of the key or of our address it is open for `refusal_retry_s`, and the health is 0; what the plan
    does not include is left alone for `entitlement_retry_s`, see `Entitlement`; a rate limit, no data, an
    unknown symbol and a wrong request have none. An answer to a call that began before a ban or a refusal of
    the key or address does not end it.
    """

    def __init__(
        self,
        provider: str,
        clock: Clock,
        breaker: BreakerPolicy,
        health: HealthPolicy,
        *,
        entitlement_retry_s: float,
        refusal_retry_s: float,
    ) -> None:
        self._provider, self._clock = provider, clock
        self._breaker, self._health = Breaker(breaker), Health(health)
        self._plan, self._refusal_retry_s = Entitlement(entitlement_retry_s), refusal_retry_s
        self._refusal: Refused | Banned | None = None
        self._refused_at_s = float("-inf")
        self.outcomes: Counter[Outcome] = Counter()
        self.last_error: tuple[str, datetime] | None = None
        self.last_success_at: datetime | None = None

    def admit(self, wanted: Wanted, symbol: str | None) -> None:
        """Pass, which may take the breaker's one probe, or raise why the provider must not be asked now."""
        now_s = self._clock.monotonic_s()
        if not self._plan.includes(wanted, symbol, now_s):
            what = wanted if symbol is None else f"{wanted} of {symbol}"
            raise NotEntitled(f"the plan of provider {self._provider} does not include {what}")
        if not self._breaker.allow(now_s):
            raise self._closed(self.moment(self._breaker.retry_at_s(now_s)))

    def not_asked(self, error: BaseException) -> None:
        """The call that was admitted was not made: the budget had no room for it, or nobody waits for it."""
        self._breaker.neutral()
        if isinstance(error, RateLimited):
            self._note(error)

    def answered(self, wanted: Wanted, symbol: str | None, began_s: float, *, empty: bool) -> None:
        """A call that began at `began_s` was answered; `empty`: without bars, which proves no entitlement."""
        now_s = self._clock.monotonic_s()
        if empty:
            self._neutral(began_s)
        else:
            self._accepted(began_s)
            self._plan.answered(wanted, symbol, now_s)
            self._health.record(good=True, latency_ms=(now_s - began_s) * 1_000, now_s=now_s)
            self.last_success_at = self._clock.now()
        self._count(Outcome.NO_DATA if empty else Outcome.BARS, began_s, now_s)

    def failed(
        self, error: ProviderError | InputError, wanted: Wanted, symbol: str | None, began_s: float
    ) -> ProviderError | InputError:
        """A call that began at `began_s` failed; the error to raise, a refusal says until when."""
        now_s, outcome = self._clock.monotonic_s(), Outcome.of(error)
        self._note(error)
        metrics.provider_errors_total.labels(self._provider, outcome).inc()
        if outcome.is_failure:
            self._health.record(good=False, latency_ms=(now_s - began_s) * 1_000, now_s=now_s)
        match error:
            case Refused():
                until_s = now_s + self._refusal_retry_s
                self._set_aside_for(error, until_s)
                error = type(error)(str(error), self.moment(until_s))
            case Banned():
                wait_s = (error.retry_at - self._clock.now()).total_seconds()
                self._set_aside_for(error, now_s + wait_s)
            case RateLimited():
                self._give_probe_back(began_s)
            case _ if outcome.is_failure:
                self._breaker.failure(now_s)
            case _:
                self._neutral(began_s)
        if isinstance(error, NotEntitled):
            self._plan.refused(wanted, symbol, now_s)
        self._count(outcome, began_s, now_s)
        return error

    def off(self) -> frozenset[Wanted]:
        """The intervals and errands that the plan does not include of any symbol."""
        return self._plan.off(self._clock.monotonic_s())

    def state(self, intervals: frozenset[Interval]) -> ProviderState:
        """The breaker's, or that the plan includes none of `intervals`."""
        if self.off() >= intervals:
            return "NOT_ENTITLED"
        return self._breaker.state(self._clock.monotonic_s()).value

    def score(self) -> float:
        """The health score; 0 while the provider refuses us."""
        now_s = self._clock.monotonic_s()
        refuses = isinstance(self._refusal, Refused) and self._breaker.state(now_s) == "OPEN"
        return 0.0 if refuses else self._health.score(now_s)

    def error_rate(self) -> float:
        """See `Health.error_rate`."""
        return self._health.error_rate(self._clock.monotonic_s())

    def latency_ms(self, quantile: float) -> float | None:
        """See `Health.latency_ms`."""
        return self._health.latency_ms(quantile, self._clock.monotonic_s())

    def set_aside(self) -> SetAside | None:
        """Why the provider is not asked at all, if so."""
        if self._refusal is None:
            return None
        retry_at_s = self._breaker.retry_at_s(self._clock.monotonic_s())
        return SetAside(reason_of(self._refusal), self.moment(retry_at_s))

    def moment(self, at_s: float) -> datetime:
        """The wall-clock time of a second of the monotonic clock."""
        return self._clock.now() + timedelta(seconds=at_s - self._clock.monotonic_s())

    def _closed(self, retry_at: datetime) -> ProviderError:
        """Why nothing is asked before `retry_at`."""
        if self._refusal is not None:
            return type(self._refusal)(str(self._refusal), retry_at)
        return ProviderDown(
            f"provider {self._provider} is down; the breaker stays open until {retry_at.isoformat()}"
        )

    def _set_aside_for(self, refusal: Refused | Banned, until_s: float) -> None:
        self._breaker.trip(until_s)
        self._refusal, self._refused_at_s = refusal, self._clock.monotonic_s()
        _log.error("provider_set_aside", provider=self._provider, reason=redact(str(refusal)))

    def _neutral(self, began_s: float) -> None:
        """An answer that says nothing about the provider's health, but that it answers us again."""
        if self._refusal is not None:
            self._accepted(began_s)
        else:
            self._breaker.neutral()

    def _accepted(self, began_s: float) -> None:
        if not self._is_outdated(began_s):
            self._refusal = None
            self._breaker.success()

    def _give_probe_back(self, began_s: float) -> None:
        if not self._is_outdated(began_s):  # else the probe is another call's
            self._breaker.neutral()

    def _is_outdated(self, began_s: float) -> bool:
        """Whether the provider has refused us since a call began; what it answers says nothing of now."""
        return self._refusal is not None and began_s <= self._refused_at_s

    def _note(self, error: Exception) -> None:
        self.last_error = (redact(str(error)), self._clock.now())

    def _count(self, outcome: Outcome, began_s: float, now_s: float) -> None:
        self.outcomes[outcome] += 1
        metrics.provider_request_ms.observe((now_s - began_s) * 1_000)
        metrics.provider_health_score.labels(self._provider).set(self.score())
