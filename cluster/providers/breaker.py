"""A circuit breaker: stops asking a provider that is down, and probes when it may be back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    """What the breaker lets through."""

    CLOSED = "CLOSED"
    """Everything."""
    OPEN = "OPEN"
    """Nothing, until the cooldown is over."""
    HALF_OPEN = "HALF_OPEN"
    """One probe at a time."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to open, and for how long."""

    failures: int = 5
    """So many failures in a row open the breaker."""
    cooldown_s: float = 10.0
    """First cooldown; doubles with every failed probe."""
    max_cooldown_s: float = 300.0
    probe_timeout_s: float = 60.0
    """A probe without a result is given up after this, so that a lost caller cannot block the provider."""


class Breaker:
    """Closed, open and half-open; pure, every call takes seconds of one monotonic clock."""

    def __init__(self, policy: BreakerPolicy | None = None) -> None:
        self._policy = policy or BreakerPolicy()
        self._failures = 0
        self._cooldowns = 0
        """Cooldowns in a row, 0 while closed."""
        self._open_until_s = float("-inf")
        self._probe_until_s = float("-inf")

    def state(self, now_s: float) -> BreakerState:
        """The state at `now_s`."""
        if not self._cooldowns:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self._open_until_s else BreakerState.HALF_OPEN

    def allow(self, now_s: float) -> bool:
        """Whether a call may be made now; in the half-open state this takes the one probe."""
        match self.state(now_s):
            case BreakerState.CLOSED:
                return True
            case BreakerState.HALF_OPEN if now_s >= self._probe_until_s:
                self._probe_until_s = now_s + self._policy.probe_timeout_s
                return True
            case _:
                return False

    def retry_at_s(self, now_s: float) -> float:
        """The earliest second at which `allow` may say yes."""
        match self.state(now_s):
            case BreakerState.CLOSED:
                return now_s
            case BreakerState.OPEN:
                return self._open_until_s
            case BreakerState.HALF_OPEN:
                return max(now_s, self._probe_until_s)

    def trip(self, until_s: float) -> None:
        """Open until `until_s`, whatever was counted: the provider itself has refused us."""
        self._cooldowns = max(1, self._cooldowns)
        self._open_until_s = max(self._open_until_s, until_s)
        self._probe_until_s = float("-inf")

    def success(self) -> None:
        """The provider answered as it should: close."""
        self._failures = self._cooldowns = 0
        self._open_until_s = self._probe_until_s = float("-inf")

    def neutral(self) -> None:
        """The call says nothing about the provider's health (a rate limit): only give the probe back."""
        self._probe_until_s = float("-inf")

    def failure(self, now_s: float) -> None:
        """The provider failed: count it, and open when it was one too many or a probe.

        Late failures of calls that began before the breaker opened do not prolong the cooldown.
        """
        self._failures += 1
        match self.state(now_s):
            case BreakerState.CLOSED if self._failures >= self._policy.failures:
                self._open(now_s)
            case BreakerState.HALF_OPEN:
                self._open(now_s)

    def _open(self, now_s: float) -> None:
        cooldown_s = min(self._policy.cooldown_s * 2.0**self._cooldowns, self._policy.max_cooldown_s)
        self._cooldowns += 1
        self._open_until_s = now_s + cooldown_s
        self._probe_until_s = float("-inf")
