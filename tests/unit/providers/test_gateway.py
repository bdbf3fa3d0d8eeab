"""What the gateway lets through, and the different effects of the different outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pytest

from cluster import metrics
from cluster.clock import FakeClock
from cluster.errors import (
    InputError,
    InvalidSymbol,
    Malformed,
    NotEntitled,
    ProviderDown,
    ProviderError,
    RateLimited,
)
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.providers.breaker import BreakerPolicy
from cluster.providers.budget import Window, WindowLeft
from cluster.providers.gateway import Gateway, GatewayPolicy
from tests.unit.providers.scripted import Scripted, minutes

NOW = datetime(2024, 6, 3, 12, 0, tzinfo=UTC)
START = datetime(2024, 6, 3, 10, 0, tzinfo=UTC)
END = START + timedelta(minutes=10)


class Silent(Scripted):
    """A provider that never answers."""

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


async def fetch(gateway: Gateway) -> list[int]:
    """The minutes after ten of the bars that were fetched."""
    table = await gateway.fetch("AAA", Interval.M1, START, END)
    return [moment.minute for moment in table["ts"].to_pylist()]


async def test_the_bars_of_the_range_come_back_valid_sorted_and_unique(clock: FakeClock) -> None:
    provider = Scripted(bars.concat([minutes(3, 1, 1, 12), minutes(2, high=0.5)]))
    gateway = Gateway(provider, clock)
    assert await fetch(gateway) == [1, 3]
    assert gateway.stats().rejected_bars == 2


async def test_what_was_rejected_in_the_range_comes_along_with_its_reason(clock: FakeClock) -> None:
    provider = Scripted(
        bars.concat([minutes(0), minutes(1, high=0.5)]),
        bars.reject(minutes(2, 3, 12), ["", "not believed", "not believed"]),
        minutes(),
        page_bars=2,
    )
    gateway = Gateway(provider, clock)
    table = await gateway.fetch("AAA", Interval.M1, START, END)
    assert [moment.minute for moment in table["ts"].to_pylist()] == [0, 2]
    told = bars.validate(table, NOW).rejected
    assert [(row["ts"].minute, row["reason"]) for row in told.to_pylist()] == [
        (1, "high is below open, close or low"),
        (3, "not believed"),
    ]
    assert gateway.stats().rejected_bars == 3


async def test_a_range_of_several_pages_is_fetched_page_by_page(clock: FakeClock) -> None:
    provider = Scripted(minutes(0, 1, 2), minutes(3, 4, 7), minutes(8), page_bars=3)
    assert await fetch(Gateway(provider, clock)) == [0, 1, 2, 3, 4, 7, 8]
    after_bar = timedelta(microseconds=1)
    assert provider.asked == [
        START,
        START + timedelta(minutes=2) + after_bar,
        START + timedelta(minutes=7) + after_bar,
    ]


async def test_a_short_page_is_not_the_end_where_the_provider_says_so(clock: FakeClock) -> None:
    provider = Scripted(minutes(0, 1), minutes(6), minutes(), page_bars=3, short_page_ends=False)
    assert await fetch(Gateway(provider, clock)) == [0, 1, 6]


async def test_no_call_is_spent_on_a_rest_that_has_no_room_for_a_bar(clock: FakeClock) -> None:
    provider = Scripted(minutes(0, 1), minutes(2, 9), page_bars=2, short_page_ends=False)
    assert await fetch(Gateway(provider, clock)) == [0, 1, 2, 9]
    assert len(provider.asked) == 2


async def test_a_provider_that_repeats_its_page_does_not_make_it_loop(clock: FakeClock) -> None:
    provider = Scripted(minutes(0, 1, 2), minutes(0, 1, 2), page_bars=3)
    assert await fetch(Gateway(provider, clock)) == [0, 1, 2]


async def test_an_empty_range_is_not_asked_for(clock: FakeClock) -> None:
    provider = Scripted()
    table = await Gateway(provider, clock).fetch("AAA", Interval.M1, START, START)
    assert table.schema == bars.BAR_SCHEMA
    assert provider.asked == []


async def test_an_interval_that_is_not_offered_is_refused_without_a_call(clock: FakeClock) -> None:
    provider = Scripted()
    with pytest.raises(InputError, match="provider scripted offers 1d, 1m; asked for 1h"):
        await Gateway(provider, clock).fetch("AAA", Interval.H1, START, END)
    assert provider.asked == []


async def test_our_own_budget_refuses_without_a_call_and_says_when(clock: FakeClock) -> None:
    provider = Scripted(minutes(0), minutes(0))
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(limit=1, seconds=60),)))
    await fetch(gateway)
    with pytest.raises(RateLimited) as refusal:
        await fetch(gateway)
    assert refusal.value.retry_at == NOW + timedelta(seconds=60)
    assert len(provider.asked) == 1
    assert gateway.stats().budget_left == [WindowLeft(limit=1, seconds=60, left=0)]
    clock.advance(60)
    assert await fetch(gateway) == [0]


async def test_a_rate_limit_closes_the_budget_but_does_not_hurt_health_or_breaker(clock: FakeClock) -> None:
    limited = RateLimited("429", NOW + timedelta(seconds=30))
    provider = Scripted(limited, minutes(0))
    gateway = Gateway(provider, clock, GatewayPolicy(breaker=BreakerPolicy(failures=1)))
    for _ in range(2):
        with pytest.raises(RateLimited) as refusal:
            await fetch(gateway)
        assert refusal.value.retry_at == NOW + timedelta(seconds=30)
    assert len(provider.asked) == 1
    assert (gateway.stats().state, gateway.stats().error_rate) == ("CLOSED", 0.0)
    clock.advance(30)
    assert await fetch(gateway) == [0]


async def test_failures_open_the_breaker_and_a_good_probe_closes_it(clock: FakeClock) -> None:
    provider = Scripted(ProviderDown("502"), Malformed("html"), minutes(0))
    gateway = Gateway(provider, clock, GatewayPolicy(breaker=BreakerPolicy(failures=2, cooldown_s=10)))
    with pytest.raises(ProviderDown, match="502"):
        await fetch(gateway)
    with pytest.raises(Malformed, match="html"):
        await fetch(gateway)
    assert gateway.stats().state == "OPEN"
    with pytest.raises(ProviderDown, match="the breaker stays open until 2024-06-03T12:00:10"):
        await fetch(gateway)
    assert len(provider.asked) == 2
    clock.advance(10)
    assert gateway.stats().state == "HALF_OPEN"
    assert await fetch(gateway) == [0]
    assert gateway.stats().state == "CLOSED"


async def test_no_data_is_an_empty_table_and_no_error(clock: FakeClock) -> None:
    gateway = Gateway(Scripted(minutes()), clock)
    assert await fetch(gateway) == []
    stats = gateway.stats()
    assert (stats.outcomes, stats.error_rate, stats.last_error) == ({"no_data": 1}, 0.0, None)


async def refused(gateway: Gateway, interval: Interval, *symbols: str) -> None:
    for symbol in symbols:
        with pytest.raises(NotEntitled):
            await gateway.fetch(symbol, interval, START, END)


async def test_a_symbol_outside_the_plan_is_left_alone_for_a_day_and_the_others_are_not(
    clock: FakeClock,
) -> None:
    provider = Scripted(NotEntitled("premium"), minutes(0), minutes(), minutes(0))
    gateway = Gateway(provider, clock)
    await refused(gateway, Interval.M1, "VOD.L", "VOD.L", "VOD.L")
    assert len(provider.asked) == 1
    assert await fetch(gateway) == [0]
    await gateway.fetch("VOD.L", Interval.D1, START, END)  # another interval is still asked for
    assert gateway.stats().state == "CLOSED"
    assert (await gateway.standing()).offer.intervals == {Interval.M1, Interval.D1}
    clock.advance(86_400)
    assert (await gateway.fetch("VOD.L", Interval.M1, START, END)).num_rows == 1


async def test_an_interval_that_was_refused_for_three_symbols_is_left_alone(clock: FakeClock) -> None:
    provider = Scripted(*[NotEntitled("premium")] * 3, minutes())
    gateway = Gateway(provider, clock)
    await refused(gateway, Interval.M1, "AAA", "BBB", "CCC", "DDD", "EEE")
    assert len(provider.asked) == 3
    assert (await gateway.standing()).offer.intervals == {Interval.D1}
    await gateway.fetch("DDD", Interval.D1, START, END)


async def test_a_provider_whose_plan_includes_nothing_is_not_entitled(clock: FakeClock) -> None:
    gateway = Gateway(Scripted(*[NotEntitled("premium")] * 6), clock)
    for interval in (Interval.M1, Interval.D1):
        await refused(gateway, interval, "AAA", "BBB", "CCC")
    assert gateway.stats().state == "NOT_ENTITLED"


async def test_an_unknown_symbol_is_neutral(clock: FakeClock) -> None:
    policy = GatewayPolicy(breaker=BreakerPolicy(failures=1))
    gateway = Gateway(Scripted(InvalidSymbol("no AAA")), clock, policy)
    with pytest.raises(InvalidSymbol):
        await fetch(gateway)
    assert (gateway.stats().state, gateway.stats().last_error) == ("CLOSED", "no AAA")


async def test_a_provider_that_does_not_answer_is_down(clock: FakeClock) -> None:
    gateway = Gateway(Silent(), clock, GatewayPolicy(timeout_s=0.01))
    with pytest.raises(ProviderDown, match=r"did not answer within 0\.01 s"):
        await fetch(gateway)
    assert gateway.stats().outcomes == {"down": 1}


@pytest.mark.parametrize(
    "answer",
    [minutes(0).drop_columns(["close"]), minutes(0, 1, high=0.5)],  # another shape; no valid bar
)
async def test_an_answer_without_a_usable_bar_is_malformed(clock: FakeClock, answer: pa.Table) -> None:
    gateway = Gateway(Scripted(answer), clock)
    with pytest.raises(Malformed, match="provider scripted"):
        await fetch(gateway)
    assert gateway.stats().health_score == 0.0


async def test_a_page_that_ends_in_bad_bars_is_not_asked_for_again(clock: FakeClock) -> None:
    full = bars.concat([minutes(0, 1), minutes(2, high=0.5)])
    provider = Scripted(full, minutes(3), page_bars=3)
    assert await fetch(Gateway(provider, clock)) == [0, 1, 3]
    assert provider.asked == [START, START + timedelta(minutes=2, microseconds=1)]


async def test_times_in_a_wrong_unit_are_rejected_bars_and_no_crash(clock: FakeClock) -> None:
    """Nanoseconds read as microseconds: a year that Python's calendar does not have."""
    ts_ns = np.array([1_717_408_800 * 10**9]).astype("datetime64[us]")
    ones = np.ones(1)
    wrong = bars.from_columns("AAA", Interval.M1, ts_ns, ones, ones, ones, ones, None, source="scripted")
    gateway = Gateway(Scripted(bars.concat([minutes(0), wrong])), clock)
    assert await fetch(gateway) == [0]
    assert gateway.stats().rejected_bars == 1


async def test_a_client_that_breaks_is_malformed_and_opens_the_breaker(clock: FakeClock) -> None:
    gateway = Gateway(Scripted(KeyError("chart")), clock, GatewayPolicy(breaker=BreakerPolicy(failures=1)))
    with pytest.raises(Malformed, match="the client of provider scripted failed: KeyError: 'chart'"):
        await fetch(gateway)
    assert gateway.stats().state == "OPEN"


async def test_the_last_error_is_told_without_its_key(clock: FakeClock) -> None:
    gateway = Gateway(Scripted(ProviderDown("502 from https://x.io/bars?apikey=ABC123&symbol=AAA")), clock)
    with pytest.raises(ProviderDown):
        await fetch(gateway)
    assert gateway.stats().last_error == "502 from https://x.io/bars?apikey=***&symbol=AAA"


def sample(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (lambda: RateLimited("429", NOW), "rate_limited"),
        (lambda: NotEntitled("403"), "not_entitled"),
        (lambda: InvalidSymbol("404"), "invalid_symbol"),
        (lambda: ProviderDown("500"), "down"),
        (lambda: Malformed("html"), "malformed"),
    ],
)
async def test_every_call_is_counted_and_every_error_by_its_kind(
    clock: FakeClock, error: Callable[[], ProviderError], kind: str
) -> None:
    selected = sample("provider_selected_total", provider="scripted")
    errors = sample("provider_errors_total", provider="scripted", kind=kind)
    timed = sample("provider_request_ms_count")
    gateway = Gateway(Scripted(error()), clock)
    with pytest.raises(ProviderError):
        await fetch(gateway)
    assert sample("provider_selected_total", provider="scripted") == selected + 1
    assert sample("provider_errors_total", provider="scripted", kind=kind) == errors + 1
    assert sample("provider_request_ms_count") == timed + 1
    assert sample("provider_health_score", provider="scripted") == gateway.stats().health_score


class Counting(Scripted):
    """A provider whose service tells the weight that it counts."""

    told: Mapping[str, int] = MappingProxyType({})

    def usage(self) -> Mapping[str, int]:
        return self.told


async def test_the_services_own_count_corrects_the_budget(clock: FakeClock) -> None:
    provider = Counting(minutes(0), minutes(0))
    provider.told = {"1m": 37}
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(limit=100, seconds=60),)))
    await fetch(gateway)
    assert gateway.stats().budget_left == [WindowLeft(limit=100, seconds=60, left=63)]
    await fetch(gateway)
    assert gateway.stats().budget_left[0].left == 62


async def test_a_count_from_before_a_failure_corrects_nothing(clock: FakeClock) -> None:
    provider = Counting(ProviderDown("reset"))
    provider.told = {"1m": 37}  # of an answer long ago
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(limit=100, seconds=60),)))
    with pytest.raises(ProviderDown):
        await fetch(gateway)
    assert gateway.stats().budget_left[0].left == 99


async def test_a_short_wait_for_the_budget_is_waited_so_that_a_range_of_many_pages_arrives(
    clock: FakeClock,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.advance(seconds)

    provider = Scripted(minutes(0, 1), minutes(2, 3), minutes(4), page_bars=2)
    policy = GatewayPolicy(budget=(Window(limit=1, seconds=1),), patience_s=1.0)
    assert await fetch(Gateway(provider, clock, policy, sleep=sleep)) == [0, 1, 2, 3, 4]
    assert waits == [1.0, 1.0]


async def test_those_who_wait_for_the_budget_go_in_the_order_in_which_they_came(clock: FakeClock) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)
        clock.advance(seconds)

    provider = Scripted(*[minutes(0)] * 3)
    policy = GatewayPolicy(budget=(Window(limit=1, seconds=1),), patience_s=1.5)
    gateway = Gateway(provider, clock, policy, sleep=sleep)
    ends = await asyncio.gather(*(fetch(gateway) for _ in range(3)), return_exceptions=True)
    # The third has the second in front of it, and would have to wait for 2 s.
    assert [type(end) for end in ends] == [list, list, RateLimited]
    assert len(provider.asked) == 2


async def test_a_cancelled_wait_gives_the_probe_of_the_breaker_back(clock: FakeClock) -> None:
    provider = Scripted(ProviderDown("down"), minutes(0))
    policy = GatewayPolicy(
        budget=(Window(limit=1, seconds=11),),
        patience_s=5.0,
        breaker=BreakerPolicy(failures=1, cooldown_s=10.0),
    )
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    gateway = Gateway(provider, clock, policy, sleep=sleep)
    with pytest.raises(ProviderDown):
        await fetch(gateway)
    clock.advance(10)
    waiting = asyncio.create_task(fetch(gateway))
    await asleep.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    clock.advance(1)
    assert await fetch(gateway) == [0]
