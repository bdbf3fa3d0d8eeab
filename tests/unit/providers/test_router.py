"""Which provider is asked, in which order, when the next one is, and what a change of source leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from cluster import metrics
from cluster.clock import FakeClock
from cluster.errors import Interrupted, InvalidSymbol, Malformed, NotEntitled, ProviderDown, RateLimited
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.providers.plans import PLANS
from cluster.providers.protocol import BarSource, Capabilities
from cluster.providers.router import Router, Rule, Want, hopeful, price_s, ranked, worth_asking
from cluster.providers.stats import Standing
from cluster.providers.synthetic import Outage, SyntheticProvider

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WANT = Want("AAA", Interval.M1, NOW - 3 * HOUR, NOW - 2 * HOUR)
OFFER = Capabilities(intervals=frozenset({Interval.M1}), symbols=None, page_bars=1_000)


def standing(name: str, **changes: object) -> Standing:
    return replace(Standing(name, OFFER), **changes)  # type: ignore[arg-type]


def offering(name: str, **changes: object) -> Standing:
    return standing(name, offer=replace(OFFER, **changes))  # type: ignore[arg-type]


def order(*standings: Standing, want: Want = WANT, rule: Rule = "announce") -> list[str]:
    return [one.provider for one in ranked(want, standings, NOW, rule)]


def limited(seconds: float) -> RateLimited:
    return RateLimited("429", NOW + timedelta(seconds=seconds))


def test_of_equals_the_first_is_asked_first() -> None:
    assert order(standing("one"), standing("other")) == ["one", "other"]


@pytest.mark.parametrize(
    "other",
    [
        offering("other", intervals=frozenset({Interval.D1})),
        offering("other", symbols=frozenset({"BBB"})),
        offering("other", asset_types=frozenset({"crypto"})),
        offering("other", earliest=WANT.end),
        offering("other", until=WANT.start),
        offering("other", depth={Interval.M1: 2 * HOUR}),
        standing("other", state="NOT_ENTITLED"),
    ],
)
def test_who_cannot_give_the_bars_is_not_asked(other: Standing) -> None:
    want = replace(WANT, asset_type="equity")
    assert order(other, standing("one"), want=want) == ["one"]


@pytest.mark.parametrize(
    "other",
    [
        offering("other", symbols=frozenset({"AAA"})),
        offering("other", asset_types=frozenset({"crypto", "equity"})),
        offering("other", earliest=WANT.start, until=WANT.end),
        offering("other", depth={Interval.M1: 3 * HOUR, Interval.D1: HOUR}),
    ],
)
def test_who_just_can_is_asked(other: Standing) -> None:
    want = replace(WANT, asset_type="equity")
    assert order(other, standing("one"), want=want) == ["other", "one"]


def test_whoever_reaches_back_far_enough_comes_before_who_has_a_part() -> None:
    part = offering("yahoo", depth={Interval.M1: timedelta(minutes=150)})
    assert order(part, standing("deep")) == ["deep", "yahoo"]


def test_the_well_come_before_the_ailing_and_these_before_the_broken() -> None:
    broken, probing = standing("broken", state="OPEN"), standing("probing", state="HALF_OPEN", health_score=0)
    ailing, well = standing("ailing", health_score=0.49), standing("well", health_score=0.5)
    assert order(broken, probing, ailing, well) == ["well", "probing", "ailing", "broken"]


def test_who_may_be_back_is_tried_as_soon_as_its_failures_are_forgotten() -> None:
    """Half-open lets one call through, or nobody would ever find out while others are well."""
    assert order(standing("back", state="HALF_OPEN"), standing("well")) == ["back", "well"]


def test_the_cheap_come_before_the_dear() -> None:
    prices = {
        name: price_s(_of_plan(name), WANT) for name in ("binance", "yahoo", "alpha_vantage", "finnhub")
    }
    assert prices == {"binance": 0.0125, "yahoo": 1.0, "alpha_vantage": 3_456.0, "finnhub": 1.0}
    dear_first = [_of_plan(name) for name in ("alpha_vantage", "finnhub", "binance")]
    assert order(*dear_first) == ["binance", "finnhub", "alpha_vantage"]


def _of_plan(name: str) -> Standing:
    window = max(PLANS[name].budget, key=lambda one: one.seconds / one.limit)
    return standing(name, seconds_per_call=window.seconds / window.limit)


def test_a_range_of_many_pages_costs_all_of_them() -> None:
    small = replace(offering("small", page_bars=25), seconds_per_call=2.0)
    assert price_s(small, WANT) == 6.0  # 60 bars are three pages


def test_a_session_goes_on_with_the_source_that_it_began_with() -> None:
    want = replace(WANT, began_with="dear")
    dear = standing("dear", seconds_per_call=99.0, health_score=0.3)
    assert order(standing("cheap"), dear, want=want) == ["dear", "cheap"]
    assert order(standing("cheap"), replace(dear, state="OPEN"), want=want) == ["cheap", "dear"]


def test_by_the_rule_never_nobody_else_goes_on() -> None:
    want = replace(WANT, began_with="broken")
    standings = (standing("well"), standing("broken", state="OPEN"))
    assert order(*standings, want=want, rule="never") == ["broken"]
    assert order(*standings, rule="never") == ["well", "broken"]  # a new session begins with anybody


def test_a_short_limit_is_waited_for_where_the_next_provider_is_dear() -> None:
    scarce = _of_plan("alpha_vantage")  # 25 calls a day
    assert not worth_asking(scarce, WANT, [limited(30)], NOW)
    assert worth_asking(scarce, WANT, [limited(86_400)], NOW)
    assert worth_asking(scarce, WANT, [ProviderDown("down")], NOW)
    assert worth_asking(_of_plan("finnhub"), WANT, [limited(86_400), limited(30)], NOW)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([limited(90), limited(30)], 1),
        ([NotEntitled("no"), limited(86_400)], 1),
        ([ProviderDown("down"), limited(600)], 1),
        ([ProviderDown("down"), limited(601)], 0),  # trying again is sooner than waiting
        ([InvalidSymbol("no"), Malformed("what")], 1),
    ],
)
def test_the_error_of_all_is_the_one_that_passes_first(errors: Sequence[Exception], expected: int) -> None:
    assert hopeful(WANT, errors, NOW) is errors[expected]


def test_where_all_refuse_nobody_is_entitled() -> None:
    error = hopeful(WANT, [NotEntitled("premium"), InvalidSymbol("unknown")], NOW)
    assert isinstance(error, NotEntitled)
    assert str(error) == "no provider gives 1m bars of AAA: premium; unknown"
    assert "none offers them" in str(hopeful(WANT, [], NOW))


class Source:
    """Answers what it was given, and remembers how often it was asked."""

    def __init__(self, name: str, answer: int | Exception, **changes: object) -> None:
        self.stands: Standing | Exception = standing(name, **changes)
        self.answer, self.asked = answer, 0

    async def standing(self) -> Standing:
        if isinstance(self.stands, Exception):
            raise self.stands
        return self.stands

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        ts = np.datetime64(start.replace(tzinfo=None), "us") + np.arange(self.answer) * np.timedelta64(
            60, "s"
        )
        ones = np.ones(self.answer)
        return bars.from_columns(symbol, interval, ts, ones, ones, ones, ones, None, source="x")


async def ask(source: BarSource) -> pa.Table:
    return await source.fetch(WANT.symbol, WANT.interval, WANT.start, WANT.end)


async def fetch(sources: Mapping[str, Source], want: Want = WANT, rule: Rule = "announce") -> tuple[str, int]:
    provider, table = await Router(sources, FakeClock(NOW), rule).fetch(want, ask)
    return provider, table.num_rows


def changes(before: str, after: str) -> float:
    return metrics.REGISTRY.get_sample_value(
        "source_changes_total", {"before": before, "after": after}
    ) or 0.0  # fmt: skip


@pytest.mark.parametrize(
    "error", [ProviderDown("reset"), Malformed("html"), NotEntitled("no"), InvalidSymbol("no"), limited(30)]
)
async def test_when_one_fails_the_next_gives_the_bars(error: Exception) -> None:
    assert await fetch({"one": Source("one", error), "other": Source("other", 3)}) == ("other", 3)


async def test_a_change_of_source_inside_a_session_is_logged_and_counted() -> None:
    sources = {"one": Source("one", ProviderDown("reset")), "other": Source("other", 3)}
    counted = changes("one", "other")
    with capture_logs() as said:
        await fetch(sources, replace(WANT, began_with="one"))
    assert [(line["event"], line["before"], line["after"]) for line in said] == [
        ("source_changed", "one", "other")
    ]
    assert changes("one", "other") == counted + 1


async def test_going_on_with_the_same_source_is_no_change() -> None:
    with capture_logs() as said:
        await fetch({"one": Source("one", 3)}, replace(WANT, began_with="one"))
    assert said == []


async def test_by_the_rule_never_a_session_waits_for_its_source() -> None:
    sources = {"one": Source("one", ProviderDown("reset")), "other": Source("other", 3)}
    with pytest.raises(ProviderDown, match="reset"):
        await fetch(sources, replace(WANT, began_with="one"), "never")
    sources["one"].stands = ProviderDown("its gateway restarts")
    with pytest.raises(ProviderDown, match="restarts"):
        await fetch(sources, replace(WANT, began_with="one"), "never")
    assert sources["other"].asked == 0
    assert await fetch(sources, replace(WANT, began_with="no more configured"), "never") == ("other", 3)


async def test_that_there_are_no_bars_is_confirmed_by_others_that_are_not_dear() -> None:
    none, some = Source("none", 0), Source("some", 3, seconds_per_call=60.0)
    dear = Source("dear", 3, seconds_per_call=61.0)
    assert await fetch({"none": none, "dear": dear}) == ("none", 0)
    assert dear.asked == 0
    assert await fetch({"none": none, "some": some, "dear": dear}) == ("some", 3)


async def test_an_empty_answer_stands_when_the_others_fail() -> None:
    sources = {"none": Source("none", 0), "broken": Source("broken", ProviderDown("reset"))}
    assert await fetch(sources) == ("none", 0)


def broken_off(bars_told: int) -> Interrupted:
    ones = np.ones(bars_told)
    ts = np.datetime64("2025-10-08T14:00", "us") + np.arange(bars_told) * np.timedelta64(60, "s")
    told = bars.from_columns("AAA", WANT.interval, ts, ones, ones, ones, ones, None, source="x")
    return Interrupted(told, WANT.start + timedelta(minutes=5), ProviderDown("reset"))


async def test_a_part_without_bars_is_no_proof_and_the_next_is_asked() -> None:
    part, other = Source("part", broken_off(0)), Source("other", 3)
    assert await fetch({"part": part, "other": other}) == ("other", 3)
    alone = {"part": part, "broken": Source("broken", ProviderDown("reset"))}
    with pytest.raises(
        Interrupted, match="answered up to"
    ):  # nobody else can tell: the job goes on behind it
        await fetch(alone)


async def test_a_part_with_bars_is_kept_before_anybody_else_is_asked() -> None:
    part, other = Source("part", broken_off(2)), Source("other", 3)
    with pytest.raises(Interrupted):
        await fetch({"part": part, "other": other})
    assert other.asked == 0


async def test_a_gateway_that_restarts_is_no_reason_to_give_up() -> None:
    silent, refusing = Source("silent", 3), Source("refusing", InvalidSymbol("unknown"))
    silent.stands = ProviderDown("its gateway restarts")
    assert await fetch({"silent": silent, "other": Source("other", 1)}) == ("other", 1)
    with pytest.raises(ProviderDown, match="restarts"):
        await fetch({"silent": silent, "refusing": refusing})


async def test_how_they_stand_is_asked_anew_after_a_while() -> None:
    one, other, clock = Source("one", 1), Source("other", 1), FakeClock(NOW)
    router = Router({"one": one, "other": other}, clock, fresh_s=5.0)
    assert (await router.fetch(WANT, ask))[0] == "one"
    one.stands = standing("one", health_score=0.1)
    clock.advance(4.9)
    assert (await router.fetch(WANT, ask))[0] == "one"
    clock.advance(0.1)
    assert (await router.fetch(WANT, ask))[0] == "other"


class Silent(Source):
    """Its gateway does not say how it stands until it is told to; the clock goes on meanwhile."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__("silent", 1)
        self._clock, self.questions, self.speaks = clock, 0, False

    async def standing(self) -> Standing:
        self.questions += 1
        if not self.speaks:
            try:
                await asyncio.Event().wait()
            finally:
                self._clock.advance(10.0)
        return await super().standing()


async def test_who_does_not_say_how_it_stands_is_asked_by_one_at_a_time_and_not_at_once_again() -> None:
    clock = FakeClock(NOW)
    silent, well = Silent(clock), Source("well", 1)
    router = Router({"silent": silent, "well": well}, clock, fresh_s=5.0, timeout_s=0.2)
    for told in [*await asyncio.gather(*(router.standings() for _ in range(3))), await router.standings()]:
        assert isinstance(told["silent"], ProviderDown)
        assert told["well"] == well.stands
    assert silent.questions == 1
    silent.speaks = True
    clock.advance(5.0)
    assert (await router.standings())["silent"] == silent.stands


class Named(SyntheticProvider):
    def __init__(self, name: str, *outages: Outage) -> None:
        super().__init__(outages=outages)
        self.name = name


async def test_traffic_moves_away_from_a_provider_that_fails_and_comes_back_later() -> None:
    clock = FakeClock(NOW)
    cheap = Gateway(Named("cheap", Outage(first_call=1, last_call=1)), clock)
    dear = Gateway(Named("dear"), clock, GatewayPolicy(budget=PLANS["finnhub"].budget))
    router = Router({"cheap": cheap, "dear": dear}, clock)
    want = replace(WANT, symbol="SYN0001")

    async def served_by() -> str:
        provider, table = await router.fetch(
            want, lambda source: source.fetch(want.symbol, want.interval, want.start, want.end)
        )
        assert table.num_rows == 60
        return provider

    assert await served_by() == "dear"  # the cheap one was asked and failed
    clock.advance(5)
    assert await served_by() == "dear"
    assert sum(cheap.stats().outcomes.values()) == 1  # its health keeps the traffic away
    clock.advance(900)
    assert await served_by() == "cheap"
