"""What `GET /stats/providers` tells about one provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from cluster.errors import (
    Banned,
    FinSightError,
    InputError,
    InvalidSymbol,
    Malformed,
    NotEntitled,
    OutOfHorizon,
    RateLimited,
    Refused,
    Restricted,
    Unauthorized,
)
from cluster.providers.budget import WindowLeft
from cluster.providers.protocol import Capabilities, Errand

ProviderState = Literal["CLOSED", "OPEN", "HALF_OPEN", "NOT_ENTITLED"]


class Outcome(StrEnum):
    """How one call to a provider ended; the names are the label `kind` of `provider_errors_total`."""

    BARS = "bars"
    """Or whatever else was asked for."""
    NO_DATA = "no_data"
    RATE_LIMITED = "rate_limited"
    BANNED = "banned"
    UNAUTHORIZED = "unauthorized"
    RESTRICTED = "restricted"
    NOT_ENTITLED = "not_entitled"
    INVALID_SYMBOL = "invalid_symbol"
    OUT_OF_HORIZON = "out_of_horizon"
    BAD_REQUEST = "bad_request"
    """The provider calls our request wrong: a mistake of ours."""
    MALFORMED = "malformed"
    DOWN = "down"

    @classmethod
    def of(cls, error: FinSightError) -> Outcome:
        """The outcome that `error` stands for."""
        return next((outcome for kind, outcome in _OUTCOMES.items() if isinstance(error, kind)), cls.DOWN)

    @property
    def is_failure(self) -> bool:
        """Whether it speaks against the provider's health; the other errors are neutral."""
        return self in (Outcome.DOWN, Outcome.MALFORMED, Outcome.UNAUTHORIZED, Outcome.RESTRICTED)


Reason = Literal["unauthorized", "restricted", "banned"]


def reason_of(refusal: Refused | Banned) -> Reason:
    """Why a provider that has refused us is not asked."""
    if isinstance(refusal, Banned):
        return "banned"
    return "unauthorized" if isinstance(refusal, Unauthorized) else "restricted"


@dataclass(frozen=True, slots=True)
class SetAside:
    """A provider that has refused us altogether."""

    reason: Reason
    until: datetime
    """When it is asked again; a reload that brings another key asks at once."""


_OUTCOMES: Mapping[type[FinSightError], Outcome] = {
    Banned: Outcome.BANNED,  # before the limit that it is, too
    RateLimited: Outcome.RATE_LIMITED,
    Unauthorized: Outcome.UNAUTHORIZED,
    Restricted: Outcome.RESTRICTED,
    NotEntitled: Outcome.NOT_ENTITLED,
    InvalidSymbol: Outcome.INVALID_SYMBOL,
    OutOfHorizon: Outcome.OUT_OF_HORIZON,
    InputError: Outcome.BAD_REQUEST,
    Malformed: Outcome.MALFORMED,
}


@dataclass(frozen=True, slots=True)
class ProviderStats:
    """State of one provider at one moment."""

    provider: str
    state: ProviderState
    """`NOT_ENTITLED` when the plan includes none of the provider's intervals, else the breaker's state."""
    health_score: float
    """0 to 1, see `Health.score`; 0 while the provider refuses us."""
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
    set_aside: SetAside | None = None
    """Why the provider is not asked at all; `None` when it is."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the choice of a provider looks at."""

    provider: str
    offer: Capabilities
    seconds_per_call: float = 0.0
    """How long its budget takes to allow one more call, in the long run: its price."""
    state: ProviderState = "CLOSED"
    health_score: float = 1.0
    errands: frozenset[Errand] = frozenset()
    """What else than bars it may be asked for."""
