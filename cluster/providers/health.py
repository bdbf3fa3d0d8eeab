"""How well a provider has done lately: error rate, latency percentiles and one score; pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """What counts as healthy."""

    window_s: float = 900.0
    """Calls older than this are forgotten."""
    calls: int = 500
    """Most calls that are remembered."""
    latency_target_ms: float = 2_000.0
    """A p95 up to this is as good as any."""
    freshness_target_s: float = 300.0
    """Calls without success for this long make the answers stale."""


@dataclass(frozen=True, slots=True)
class _Call:
    at_s: float
    latency_ms: float
    good: bool


class Health:
    """Remembers the outcomes of recent calls; times are seconds of one monotonic clock.

    Only successes and failures of the provider are recorded; a rate limit or an unknown symbol is neither.
    """

    def __init__(self, policy: HealthPolicy | None = None) -> None:
        self._policy = policy or HealthPolicy()
        self._calls: deque[_Call] = deque(maxlen=self._policy.calls)
        self._good_s: float | None = None

    def record(self, *, good: bool, latency_ms: float, now_s: float) -> None:
        """Remember the outcome of one call."""
        self._calls.append(_Call(now_s, latency_ms, good))
        if good:
            self._good_s = now_s

    def error_rate(self, now_s: float) -> float:
        """Failed share of the recent calls, 0 without calls."""
        calls = self._recent(now_s)
        return sum(not call.good for call in calls) / len(calls) if calls else 0.0

    def latency_ms(self, quantile: float, now_s: float) -> float | None:
        """Nearest-rank quantile of the recent good calls' latency, `None` without good calls."""
        latencies = sorted(call.latency_ms for call in self._recent(now_s) if call.good)
        if not latencies:
            return None
        return latencies[max(0, math.ceil(quantile * len(latencies)) - 1)]

    def score(self, now_s: float) -> float:
        """0 (nothing works) to 1 (all is well): 0.6 success + 0.2 latency + 0.2 freshness; 1 without calls.

        Latency counts target / p95, at most 1. Freshness falls from 1 to 0 as the time between the last call
        and the last success grows to the target; being idle costs nothing.
        """
        calls = self._recent(now_s)
        if not calls:
            return 1.0
        p95_ms = self.latency_ms(0.95, now_s)
        latency = 0.0 if p95_ms is None else min(1.0, self._policy.latency_target_ms / max(p95_ms, 1e-9))
        return 0.6 * (1.0 - self.error_rate(now_s)) + 0.2 * latency + 0.2 * self._freshness(calls)

    def _freshness(self, calls: list[_Call]) -> float:
        if self._good_s is None:
            return 0.0
        without_success_s = max(0.0, calls[-1].at_s - self._good_s)
        return max(0.0, 1.0 - without_success_s / self._policy.freshness_target_s)

    def _recent(self, now_s: float) -> list[_Call]:
        while self._calls and self._calls[0].at_s <= now_s - self._policy.window_s:
            self._calls.popleft()
        return list(self._calls)
