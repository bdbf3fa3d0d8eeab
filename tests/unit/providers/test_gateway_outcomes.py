"""How a provider that refuses is set aside and found again, and what is kept of a range that breaks off."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from cluster import metrics
from cluster.backfill.verdict import GiveUp, Retry, Snooze, Verdict, verdict
from cluster.clock import FakeClock
from cluster.errors import (
    Banned,
    FinSightError,
    InputError,
    Interrupted,
    InvalidSymbol,
    Malformed,
    NotEntitled,
    OutOfHorizon,
    ProviderDown,
    RateLimited,
    Refused,
    Restricted,
    Unauthorized,
)
from cluster.market.adjustments import CorporateAction
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.breaker import BreakerPolicy
from cluster.providers.budget import Window, WindowLeft
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.providers.protocol import Quote, Step
from cluster.providers.stats import Outcome, SetAside
from tests.unit.providers.scripted import Scripted, minutes

NOW = datetime(2024, 6, 3, 12, 0, tzinfo=UTC)
START = datetime(2024, 6, 3, 10, 0, tzinfo=UTC)
END = START + timedelta(minutes=10)
HOUR = timedelta(hours=1)
MINUTE = Window(limit=100, seconds=60)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


async def fetch(gateway: Gateway) -> list[int]:
    """The minutes after ten of the bars that were fetched."""
    return offsets(await gateway.fetch("AAA", Interval.M1, START, END))


def offsets(table: pa.Table) -> list[int]:
    return [moment.minute for moment in table["ts"].to_pylist()]


# Refusals


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [(Unauthorized("bad key"), "unauthorized"), (Restricted("not here"), "restricted")],
)
async def test_who_refuses_us_is_set_aside_for_an_hour_with_health_0(
    clock: FakeClock, refusal: Refused, reason: str
) -> None:
    gateway = Gateway(provider := Scripted(minutes(0), refusal, minutes(0)), clock)
    await fetch(gateway)
    for _ in range(3):
        with pytest.raises(type(refusal), match=str(refusal)) as refused:
            await fetch(gateway)
        assert refused.value.retry_at == NOW + HOUR
    stats = gateway.stats()
    assert len(provider.asked) == 2
    assert (stats.state, stats.health_score, stats.outcomes) == ("OPEN", 0.0, {"bars": 1, reason: 1})
    assert stats.set_aside is not None
    assert (stats.set_aside.reason, stats.set_aside.until) == (reason, NOW + HOUR)
    clock.advance(3_599)
    with pytest.raises(type(refusal)):
        await fetch(gateway)
    clock.advance(1)
    assert gateway.stats().state == "HALF_OPEN"
    assert await fetch(gateway) == [0]
    assert (gateway.stats().state, gateway.stats().set_aside) == ("CLOSED", None)


async def test_a_key_that_is_still_refused_is_left_alone_for_another_hour(clock: FakeClock) -> None:
    gateway = Gateway(Scripted(Unauthorized("bad"), Unauthorized("still bad"), minutes(0)), clock)
    for hours in (1, 2):
        with pytest.raises(Unauthorized):
            await fetch(gateway)
        assert gateway.stats().set_aside == SetAside("unauthorized", NOW + hours * HOUR)
        clock.advance(3_600)
    assert await fetch(gateway) == [0]


@pytest.mark.parametrize("answer", [minutes(), InvalidSymbol("no AAA"), NotEntitled("premium")])
async def test_any_answer_shows_that_the_key_is_accepted_again(clock: FakeClock, answer: object) -> None:
    gateway = Gateway(Scripted(Unauthorized("bad"), answer, minutes(0)), clock)
    with pytest.raises(Unauthorized):
        await fetch(gateway)
    clock.advance(3_600)
    if isinstance(answer, Exception):
        with pytest.raises(type(answer)):
            await fetch(gateway)
    else:
        assert await fetch(gateway) == []
    assert (gateway.stats().state, gateway.stats().set_aside) == ("CLOSED", None)


async def test_a_ban_asks_nothing_before_its_end_and_hurts_no_health(clock: FakeClock) -> None:
    gateway = Gateway(provider := Scripted(Banned("banned", NOW + HOUR), minutes(0)), clock)
    for _ in range(2):
        with pytest.raises(Banned, match="banned") as ban:
            await fetch(gateway)
        assert ban.value.retry_at == NOW + HOUR
    stats = gateway.stats()
    assert len(provider.asked) == 1
    assert (stats.state, stats.health_score, stats.outcomes) == ("OPEN", 1.0, {"banned": 1})
    assert stats.set_aside == SetAside("banned", NOW + HOUR)
    clock.advance(3_600)
    assert await fetch(gateway) == [0]
    assert gateway.stats().set_aside is None


TABLE = [
    # error, outcome, speaks against the health, state after one with a breaker that opens at once, the job
    (RateLimited("429", NOW + HOUR), "rate_limited", False, "CLOSED", Snooze(NOW + HOUR)),
    (Banned("418", NOW + HOUR), "banned", False, "OPEN", Snooze(NOW + HOUR)),
    (NotEntitled("403"), "not_entitled", False, "CLOSED", GiveUp()),
    (InvalidSymbol("404"), "invalid_symbol", False, "CLOSED", GiveUp()),
    (OutOfHorizon("422"), "out_of_horizon", False, "CLOSED", GiveUp()),
    (InputError("400"), "bad_request", False, "CLOSED", GiveUp()),
    (Unauthorized("401"), "unauthorized", True, "OPEN", Snooze(NOW + HOUR)),
    (Restricted("451"), "restricted", True, "OPEN", Snooze(NOW + HOUR)),
    (ProviderDown("500"), "down", True, "OPEN", Retry()),
    (Malformed("html"), "malformed", True, "OPEN", Retry()),
]


@pytest.mark.parametrize(("error", "outcome", "is_failure", "state", "job"), TABLE)
async def test_every_outcome_has_its_own_effect_on_breaker_health_metrics_and_job(
    clock: FakeClock, error: FinSightError, outcome: str, is_failure: bool, state: str, job: Verdict
) -> None:
    labels = {"provider": "scripted", "kind": outcome}
    before = metrics.REGISTRY.get_sample_value("provider_errors_total", labels) or 0.0
    gateway = Gateway(Scripted(error), clock, GatewayPolicy(breaker=BreakerPolicy(failures=1)))
    with pytest.raises(type(error)) as raised:
        await fetch(gateway)
    assert gateway.stats().state == state
    assert gateway.stats().health_score == (0.0 if is_failure else 1.0)
    assert gateway.stats().outcomes == {outcome: 1}
    assert verdict(raised.value) == job
    assert metrics.REGISTRY.get_sample_value("provider_errors_total", labels) == before + 1


def test_the_table_has_every_outcome_but_the_good_ones() -> None:
    assert {row[1] for row in TABLE} == set(map(str, Outcome)) - {"bars", "no_data"}


@pytest.mark.parametrize(
    "error",
    [
        Unauthorized("bad key", NOW),
        Banned("banned", NOW),
        OutOfHorizon("gone", NOW),
        Interrupted(minutes(0, 1), NOW, RateLimited("later", NOW)),
    ],
)
def test_what_an_error_carries_travels_between_processes(error: FinSightError) -> None:
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert str(there) == str(error)
    mine, theirs = vars(error), vars(there)
    assert theirs.keys() == mine.keys()
    assert theirs.get("retry_at") == mine.get("retry_at")
    if isinstance(there, Interrupted):
        assert there.bars.equals(minutes(0, 1))
        assert (there.until, there.cause.args) == (NOW, ("later",))


# Parts of a range


async def test_an_error_on_a_later_page_carries_the_pages_before_it(clock: FakeClock) -> None:
    provider = Scripted(minutes(0, 1), minutes(2, 5), ProviderDown("502"), page_bars=2)
    with pytest.raises(Interrupted, match=r"answered up to 2024-06-03T10:05:00\.000001.* only: 502") as part:
        await fetch(Gateway(provider, clock))
    assert offsets(part.value.bars) == [0, 1, 2, 5]
    assert part.value.until == START + timedelta(minutes=5, microseconds=1)
    assert isinstance(part.value.cause, ProviderDown)


async def test_a_budget_that_ends_between_two_pages_carries_the_first_and_when_to_go_on(
    clock: FakeClock,
) -> None:
    policy = GatewayPolicy(budget=(Window(limit=1, seconds=60),))
    with pytest.raises(Interrupted) as part:
        await fetch(Gateway(Scripted(minutes(0, 1), page_bars=2), clock, policy))
    assert offsets(part.value.bars) == [0, 1]
    assert isinstance(part.value.cause, RateLimited)
    assert part.value.cause.retry_at == NOW + timedelta(seconds=60)


class Windowed(Scripted):
    """Answers four minutes a call, and nothing from 10:04 to 10:08."""

    def step(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> Step | None:
        return Step(start, min(end, start + timedelta(minutes=4))) if start < end else None


async def test_every_window_is_taken_out_of_the_budget_the_empty_ones_too(clock: FakeClock) -> None:
    provider = Windowed(minutes(0, 3), minutes(), minutes(9), short_page_ends=False)
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(MINUTE,)))
    assert await fetch(gateway) == [0, 3, 9]
    assert provider.asked == [START + timedelta(minutes=late) for late in (0, 4, 8)]
    assert gateway.stats().budget_left == [WindowLeft(100, 60, 97)]


async def test_windows_that_were_empty_are_not_asked_for_again(clock: FakeClock) -> None:
    policy = GatewayPolicy(budget=(Window(limit=2, seconds=86_400),))
    provider = Windowed(minutes(), minutes(), short_page_ends=False)
    with pytest.raises(Interrupted) as part:
        await fetch(Gateway(provider, clock, policy))
    assert (part.value.bars.num_rows, part.value.until) == (0, START + timedelta(minutes=8))


class Twice(Windowed):
    """Makes two calls for each of its windows."""

    def step(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> Step | None:
        one = super().step(symbol, interval, start, end)
        return one and Step(one.start, one.end, calls=2)


async def test_a_window_that_takes_two_calls_is_paid_for_twice(clock: FakeClock) -> None:
    provider = Twice(minutes(0), minutes(), minutes(9), short_page_ends=False)
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(MINUTE,)))
    await fetch(gateway)
    assert gateway.stats().budget_left == [WindowLeft(100, 60, 94)]


# Other errands


class Telling(Scripted):
    """Tells prices, actions, instruments and limits out of its list."""

    async def quote(self, symbol: str) -> Quote:
        quote: Quote = self.next()
        return quote

    async def actions(self, symbol: str, start: datetime, end: datetime) -> list[CorporateAction]:
        told: list[CorporateAction] = self.next()
        return told

    async def list_instruments(self) -> list[Instrument]:
        listed: list[Instrument] = self.next()
        return listed

    async def limits(self) -> tuple[Window, ...]:
        limits: tuple[Window, ...] = self.next()
        return limits


async def test_prices_actions_and_instruments_go_through_budget_and_health(clock: FakeClock) -> None:
    quote = Quote("AAA", 2.0, NOW, "scripted")
    split = CorporateAction("AAA", date(2024, 6, 3), "split", 4.0, "scripted")
    listed = Instrument("AAA", "NASDAQ", "equity", "XNYS")
    gateway = Gateway(Telling(quote, [split], [listed]), clock, GatewayPolicy(budget=(MINUTE,)))
    assert await gateway.quote("AAA") == quote
    assert await gateway.actions("AAA", START, END) == [split]
    assert await gateway.instruments() == [listed]
    assert gateway.stats().budget_left == [WindowLeft(100, 60, 97)]
    assert gateway.stats().outcomes == {"bars": 3}
    assert (await gateway.standing()).errands == {"quote", "actions"}


@pytest.mark.parametrize(
    ("price", "late_s"), [(0.0, 0), (-1.0, 0), (float("nan"), 0), (float("inf"), 0), (2.0, 301)]
)
async def test_a_price_that_none_can_be_is_malformed(clock: FakeClock, price: float, late_s: int) -> None:
    told = Quote("AAA", price, NOW + timedelta(seconds=late_s), "scripted")
    with pytest.raises(Malformed, match="is no price of AAA of now"):
        await Gateway(Telling(told), clock).quote("AAA")


async def test_an_errand_outside_the_plan_is_left_alone_and_bars_are_not(clock: FakeClock) -> None:
    gateway = Gateway(Telling(*[NotEntitled("premium")] * 3, minutes(0)), clock)
    for symbol in ("AAA", "BBB", "CCC", "DDD"):
        with pytest.raises(NotEntitled):
            await gateway.quote(symbol)
    assert await fetch(gateway) == [0]
    assert (await gateway.standing()).errands == {"actions"}


async def test_what_a_provider_does_not_tell_is_the_callers_fault(clock: FakeClock) -> None:
    gateway = Gateway(Scripted(), clock)
    with pytest.raises(InputError, match="tells no prices"):
        await gateway.quote("AAA")
    with pytest.raises(InputError, match="tells no splits and dividends"):
        await gateway.actions("AAA", START, END)
    assert await gateway.instruments() == []
    assert (await gateway.standing()).errands == frozenset()


async def test_the_budget_is_narrowed_to_four_fifths_of_what_the_provider_tells(clock: FakeClock) -> None:
    told = (Window(limit=60, seconds=60), Window(limit=9, seconds=1))
    policy = GatewayPolicy(budget=(MINUTE, Window(limit=500, seconds=3_600)))
    gateway = Gateway(Telling(told, minutes(0)), clock, policy)
    await gateway.learn_limits()  # of weight 20, which counts
    assert gateway.stats().budget_left == [WindowLeft(48, 60, 28), WindowLeft(500, 3_600, 480)]
    await fetch(gateway)
    assert gateway.stats().budget_left[0].left == 27


async def test_limits_above_the_plan_do_not_widen_it(clock: FakeClock) -> None:
    told = (Window(limit=6_000, seconds=60),)
    gateway = Gateway(Telling(told), clock, GatewayPolicy(budget=(MINUTE,)))
    await gateway.learn_limits()
    assert gateway.stats().budget_left == [WindowLeft(100, 60, 80)]
