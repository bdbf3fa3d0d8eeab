"""Synthetic bars: the same number gives the same bars, and injected faults do what they say."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.clock import FakeClock
from cluster.errors import InvalidSymbol, ProviderDown
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.providers.synthetic import Hole, Outage, Revision, SyntheticProvider

START = datetime(2024, 3, 4, tzinfo=UTC)
DAY = timedelta(days=1)


async def week(provider: SyntheticProvider, interval: Interval, symbol: str = "SYN0001") -> pa.Table:
    return await provider.bars(symbol, interval, START, START + 7 * DAY)


@pytest.mark.parametrize("symbol", ["SPX", "SYN001", "SYN123456789", "XSYN0001", "SYN0001X", ""])
async def test_what_it_does_not_tell_to_have_it_refuses(symbol: str) -> None:
    offered = pickle.loads(pickle.dumps(SyntheticProvider.capabilities)).symbols  # as another process sees it
    assert symbol not in offered
    with pytest.raises(InvalidSymbol):
        await week(SyntheticProvider(), Interval.D1, symbol)
    assert "SYN0001" in offered


async def test_another_seed_or_symbol_gives_other_prices() -> None:
    first = await week(SyntheticProvider(seed=1), Interval.H1)
    assert first.equals(await week(SyntheticProvider(seed=1), Interval.H1))
    assert not first["close"].equals((await week(SyntheticProvider(seed=2), Interval.H1))["close"])
    assert not first["close"].equals((await week(SyntheticProvider(seed=1), Interval.H1, "SYN0002"))["close"])


async def test_the_first_bar_of_a_known_seed_never_changes() -> None:
    bar = (await week(SyntheticProvider(seed=7), Interval.M1)).slice(0, 1).to_pylist()[0]
    assert (bar["open"], bar["high"], bar["low"], bar["close"], bar["volume"]) == FIRST_BAR


@pytest.mark.parametrize("interval", list(Interval))
async def test_coarse_bars_are_made_of_the_minutes(interval: Interval) -> None:
    provider = SyntheticProvider(seed=3)
    fine, coarse = await week(provider, Interval.M1), await week(provider, interval)
    per_bar = interval.seconds // 60
    columns = {name: fine[name].to_numpy().reshape(-1, per_bar) for name in (*bars.PRICES, "volume")}
    assert np.array_equal(coarse["open"].to_numpy(), columns["open"][:, 0])
    assert np.array_equal(coarse["high"].to_numpy(), columns["high"].max(axis=1))
    assert np.array_equal(coarse["low"].to_numpy(), columns["low"].min(axis=1))
    assert np.array_equal(coarse["close"].to_numpy(), columns["close"][:, -1])
    assert np.array_equal(coarse["volume"].to_numpy(), columns["volume"].sum(axis=1))


async def test_a_bar_opens_where_the_one_before_closed() -> None:
    table = await week(SyntheticProvider(), Interval.M1)
    assert np.array_equal(table["open"].to_numpy()[1:], table["close"].to_numpy()[:-1])


@settings(deadline=None, max_examples=30)
@given(
    interval=st.sampled_from(list(Interval)),
    first=st.integers(0, 7 * 1_440),
    length=st.integers(0, 2 * 1_440),
)
async def test_any_sub_range_answers_the_same_bars(interval: Interval, first: int, length: int) -> None:
    provider = SyntheticProvider(seed=5, holes=(Hole("SYN0001", START + DAY, START + DAY * 1.5),))
    start, end = START + timedelta(minutes=first), START + timedelta(minutes=first + length)
    whole = await provider.bars("SYN0001", interval, START, START + 10 * DAY)
    part = await provider.bars("SYN0001", interval, start, end)
    assert part.equals(bars.between(whole, start, end))


async def test_only_closed_bars_are_answered() -> None:
    clock = FakeClock(START + timedelta(minutes=10))
    provider = SyntheticProvider(clock=clock)
    assert (await week(provider, Interval.M5)).num_rows == 2
    clock.advance(299)
    assert (await week(provider, Interval.M5)).num_rows == 2
    clock.advance(1)
    assert (await week(provider, Interval.M5)).num_rows == 3


async def test_nothing_opens_before_the_earliest_bar() -> None:
    provider = SyntheticProvider()
    earliest = provider.capabilities.earliest
    assert earliest is not None
    table = await provider.bars("SYN0001", Interval.D1, earliest - 10 * DAY, earliest + 2 * DAY)
    assert table["ts"].to_pylist() == [earliest, earliest + DAY]


async def test_a_hole_takes_the_bars_of_its_symbol_and_range_only() -> None:
    hole = Hole("SYN0001", START + timedelta(hours=1), START + timedelta(hours=3))
    provider = SyntheticProvider(holes=(hole,))
    table = await provider.bars("SYN0001", Interval.H1, START, START + timedelta(hours=5))
    assert [moment.hour for moment in table["ts"].to_pylist()] == [0, 3, 4]
    assert (await provider.bars("SYN0002", Interval.H1, START, START + timedelta(hours=5))).num_rows == 5


async def test_a_revision_changes_one_bar_from_its_moment_on() -> None:
    clock = FakeClock(START + 10 * DAY)
    revision = Revision(
        "SYN0001", START + timedelta(hours=2, minutes=5), 1.5, after=START + 10 * DAY + timedelta(hours=1)
    )
    provider = SyntheticProvider(revisions=(revision,), clock=clock)
    before = await week(provider, Interval.H1)
    clock.advance(3_600)
    after = await week(provider, Interval.H1)
    changed = np.flatnonzero(before["close"].to_numpy() != after["close"].to_numpy())
    assert changed.tolist() == [2]
    assert after["close"][2].as_py() == pytest.approx(1.5 * before["close"][2].as_py())
    assert bars.validate(after, clock.now()).rejected.num_rows == 0


async def test_a_revision_can_wait_for_a_number_of_calls() -> None:
    provider = SyntheticProvider(revisions=(Revision("SYN0001", START, 0.5, after_calls=2),))
    first, second, third = [await week(provider, Interval.D1) for _ in range(3)]
    assert first.equals(second)
    assert third["close"][0].as_py() == pytest.approx(0.5 * first["close"][0].as_py())


async def test_an_outage_in_time_begins_and_ends() -> None:
    clock = FakeClock(START)
    provider = SyntheticProvider(outages=(Outage(start=START + DAY, end=START + 2 * DAY),), clock=clock)
    await week(provider, Interval.D1)
    clock.advance(86_400)
    with pytest.raises(ProviderDown, match="injected outage"):
        await week(provider, Interval.D1)
    clock.advance(86_400)
    await week(provider, Interval.D1)


async def test_an_outage_can_strike_given_calls() -> None:
    provider = SyntheticProvider(outages=(Outage(first_call=2, last_call=3),))
    await week(provider, Interval.D1)
    for _ in range(2):
        with pytest.raises(ProviderDown):
            await week(provider, Interval.D1)
    await week(provider, Interval.D1)


async def test_a_long_range_is_answered_up_to_one_page() -> None:
    provider = SyntheticProvider()
    table = await provider.bars("SYN0001", Interval.M1, START, START + 710 * DAY)
    assert table.num_rows == provider.capabilities.page_bars


FIRST_BAR = (141.9533, 141.99, 141.9473, 141.9686, 39.0)
"""Seed 7, SYN0001, 2024-03-04 00:00. If it changes, stored synthetic bars become revisions everywhere."""


async def test_many_symbols_are_answered_as_each_by_itself() -> None:
    holes = (Hole("SYN0002", START + DAY, START + DAY * 1.5),)
    revisions = (Revision("SYN0003", START + DAY, 1.5),)
    provider = SyntheticProvider(seed=5, holes=holes, revisions=revisions)
    names = ["SYN0003", "SYN0001", "SYN0002"]
    start, end = START + DAY * 0.9, START + DAY * 1.2
    many = await provider.many(names, Interval.M5, start, end)
    each = [await provider.bars(name, Interval.M5, start, end) for name in names]
    assert many.errors == {}
    assert many.table.equals(pa.concat_tables(each).combine_chunks())
    assert len(each[2]) < len(each[1])


async def test_unknown_symbols_do_not_spoil_the_answer_of_the_others() -> None:
    many = await SyntheticProvider().many(["SPX", "SYN0001"], Interval.H1, START, START + DAY)
    assert many.table["symbol"].unique().to_pylist() == ["SYN0001"]
    assert [(name, type(error)) for name, error in many.errors.items()] == [("SPX", InvalidSymbol)]


async def test_many_symbols_are_one_call_of_an_outage() -> None:
    provider = SyntheticProvider(outages=(Outage(first_call=1, last_call=1),))
    with pytest.raises(ProviderDown):
        await provider.many(["SYN0001", "SYN0002"], Interval.H1, START, START + DAY)
    assert (await provider.many(["SYN0001", "SYN0002"], Interval.H1, START, START + DAY)).table.num_rows == 48


@settings(deadline=None, max_examples=30)
@given(
    interval=st.sampled_from(list(Interval)), seconds=st.integers(0, 86_399), micros=st.integers(0, 999_999)
)
async def test_the_bar_that_runs_is_on_its_way_to_the_one_that_it_becomes(
    interval: Interval, seconds: int, micros: int
) -> None:
    now = START + timedelta(seconds=seconds, microseconds=micros)
    provider = SyntheticProvider(running_bar=True, clock=FakeClock(now))
    seen = (await provider.bars("SYN0001", interval, START, START + DAY)).to_pylist()
    final = (await SyntheticProvider().bars("SYN0001", interval, START, START + DAY)).to_pylist()
    assert [bar["is_final"] for bar in seen] == [True] * (len(seen) - 1) + [False]
    assert seen[:-1] == final[: len(seen) - 1]
    running, last = seen[-1], final[len(seen) - 1]
    assert running["ts"] == last["ts"] <= now < last["ts"] + timedelta(seconds=interval.seconds)
    assert running["open"] == last["open"]
    assert last["low"] <= running["low"] <= min(running["open"], running["close"])
    assert max(running["open"], running["close"]) <= running["high"] <= last["high"]
    assert running["volume"] <= last["volume"]
    again = SyntheticProvider(running_bar=True, clock=FakeClock(now))
    assert (await again.bars("SYN0001", interval, START, START + DAY)).to_pylist() == seen
