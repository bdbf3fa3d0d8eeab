"""What an answer that comes late says of a provider that has refused us since."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cluster.clock import FakeClock
from cluster.errors import Banned, InvalidSymbol, ProviderError, RateLimited, Restricted, Unauthorized
from cluster.market.intervals import Interval
from cluster.providers.breaker import BreakerPolicy
from cluster.providers.condition import Condition
from cluster.providers.health import HealthPolicy

NOW = datetime(2024, 6, 3, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
M1, INTERVALS = Interval.M1, frozenset({Interval.M1})
REFUSALS = [Banned("418", NOW + HOUR), Unauthorized("401"), Restricted("451")]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def condition(clock: FakeClock) -> Condition:
    return Condition(
        "scripted", clock, BreakerPolicy(), HealthPolicy(), entitlement_retry_s=86_400, refusal_retry_s=3_600
    )


def begin(condition: Condition, clock: FakeClock) -> float:
    """A call is let through; when it began."""
    condition.admit(M1, "AAA")
    return clock.monotonic_s()


def refuse(condition: Condition, clock: FakeClock, refusal: ProviderError) -> float:
    """Two calls begin and the second one is refused a second later; when the first began."""
    early_s, late_s = begin(condition, clock), begin(condition, clock)
    clock.advance(1)
    condition.failed(refusal, M1, "AAA", late_s)
    return early_s


def is_set_aside(condition: Condition) -> bool:
    return condition.set_aside() is not None and condition.state(INTERVALS) == "OPEN"


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("empty", [False, True])
def test_an_answer_to_a_call_from_before_a_refusal_does_not_end_it(
    condition: Condition, clock: FakeClock, refusal: ProviderError, empty: bool
) -> None:
    early_s = refuse(condition, clock, refusal)
    clock.advance(1)
    condition.answered(M1, "AAA", early_s, empty=empty)
    assert is_set_aside(condition)
    with pytest.raises(type(refusal)):
        condition.admit(M1, "AAA")


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_unknown_symbol_of_a_call_from_before_a_refusal_does_not_end_it(
    condition: Condition, clock: FakeClock, refusal: ProviderError
) -> None:
    early_s = refuse(condition, clock, refusal)
    condition.failed(InvalidSymbol("no AAA"), M1, "AAA", early_s)
    assert is_set_aside(condition)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_answer_to_a_call_that_began_after_a_refusal_ends_it(
    condition: Condition, clock: FakeClock, refusal: ProviderError
) -> None:
    refuse(condition, clock, refusal)
    clock.advance(3_600)
    condition.answered(M1, "AAA", begin(condition, clock), empty=False)
    assert (condition.set_aside(), condition.state(INTERVALS)) == (None, "CLOSED")


@pytest.mark.parametrize("error", [RateLimited("429", NOW), InvalidSymbol("no AAA")])
def test_a_late_answer_does_not_let_a_second_probe_through(
    condition: Condition, clock: FakeClock, error: ProviderError
) -> None:
    early_s = refuse(condition, clock, Unauthorized("401"))
    clock.advance(3_600)
    begin(condition, clock)  # the probe
    condition.failed(error, M1, "AAA", early_s)
    with pytest.raises(Unauthorized):
        condition.admit(M1, "AAA")
