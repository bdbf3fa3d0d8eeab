"""What `GET /stats/providers` tells about one provider."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from cluster.errors import InvalidSymbol, Malformed, NotEntitled, ProviderError, RateLimited
from cluster.providers.budget import WindowLeft
from cluster.providers.protocol import Capabilities

ProviderState = Literal["CLOSED", "OPEN", "HALF_OPEN", "NOT_ENTITLED"]


class Outcome(StrEnum):
    """How one call to a provider ended; the names are the label `kind` of `provider_errors_total`."""

    BARS = "bars"
    NO_DATA = "no_data"
    RATE_LIMITED = "rate_limited"
    NOT_ENTITLED = "not_entitled"
    INVALID_SYMBOL = "invalid_symbol"
    MALFORMED = "malformed"
    DOWN = "down"

    @classmethod
    def of(cls, error: ProviderError) -> Outcome:
        """The outcome that `error` stands for."""
        match error:
            case RateLimited():
                return cls.RATE_LIMITED
            case NotEntitled():
                return cls.NOT_ENTITLED
            case InvalidSymbol():
                return cls.INVALID_SYMBOL
            case Malformed():
                return cls.MALFORMED
            case _:
                return cls.DOWN

    @property
    def is_failure(self) -> bool:
        """Whether it speaks against the provider's health; the other errors are neutral."""
        return self in (Outcome.DOWN, Outcome.MALFORMED)


@dataclass(frozen=True, slots=True)
class ProviderStats:
    """State of one provider at one moment."""

    provider: str
    state: ProviderState
    """`NOT_ENTITLED` when the plan includes none of the provider's intervals, else the breaker's state."""
    health_score: float
    """0 to 1, see `Health.score`."""
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    error_rate: float
    """Failed share of the recent calls, 0 to 1."""
    budget_left: list[WindowLeft]
    last_error: str | None
    last_error_at: datetime | None
    last_success_at: datetime | None
    outcomes: dict[str, int] = field(default_factory=dict)
    """Calls since the gateway started, by outcome."""
    rejected_bars: int = 0
    """Bars since the gateway started that broke a rule and were not passed on."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the choice of a provider looks at."""

    provider: str
    offer: Capabilities
    seconds_per_call: float = 0.0
    """How long its budget takes to allow one more call, in the long run: its price."""
    state: ProviderState = "CLOSED"
    health_score: float = 1.0
