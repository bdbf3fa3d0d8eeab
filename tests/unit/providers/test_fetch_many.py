"""Bars of many symbols through a gateway: in one call where the provider can, else a call a symbol."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from cluster.clock import FakeClock
from cluster.errors import InputError, InvalidSymbol, Malformed, ProviderDown, RateLimited
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.budget import Window
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.providers.protocol import Capabilities, Many

M1 = Interval.M1
NOW = datetime(2025, 10, 8, 12, tzinfo=UTC)
START, END = NOW - timedelta(minutes=3), NOW


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


def minutes(symbol: str, count: int = 3, price: float = 1.0) -> pa.Table:
    ts = np.datetime64("2025-10-08T11:57", "us") + np.arange(count).astype("timedelta64[m]")
    column = np.full(count, price)
    return bars.from_columns(symbol, M1, ts, column, column, column, column, column, source="one")


class One:
    """Answers a symbol a call; `wrong` says what it raises or answers instead."""

    name = "one"
    capabilities = Capabilities(intervals=frozenset({M1}), symbols=None, page_bars=9)

    def __init__(self, **wrong: object) -> None:
        self._wrong = wrong
        self.calls: list[Sequence[str]] = []

    def instruments(self) -> list[Instrument]:
        return []

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        self.calls.append([symbol])
        return self._answer(symbol)

    def _answer(self, symbol: str) -> pa.Table:
        wrong = self._wrong.get(symbol)
        if isinstance(wrong, Exception):
            raise wrong
        return wrong if isinstance(wrong, pa.Table) else minutes(symbol)


class All(One):
    """Answers all symbols in one call."""

    async def many(self, symbols: Sequence[str], interval: Interval, start: datetime, end: datetime) -> Many:
        self.calls.append(symbols)
        if "*" in self._wrong:
            self._answer("*")
        tables, errors = [], {}
        for symbol in symbols:
            try:
                tables.append(self._answer(symbol))
            except InvalidSymbol as error:
                errors[symbol] = error
        return Many(bars.concat(tables), errors)


def counts(answer: Many) -> dict[str, int]:
    return {str(each["values"]): each["counts"] for each in answer.table["symbol"].value_counts().to_pylist()}


def kinds(answer: Many) -> dict[str, type[Exception]]:
    return {symbol: type(error) for symbol, error in answer.errors.items()}


async def test_one_call_answers_all_and_costs_one(clock: FakeClock) -> None:
    provider = All()
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(5, 60),)))
    answer = await gateway.fetch_many(["A", "B"], M1, START, END)
    assert (counts(answer), answer.errors) == ({"A": 3, "B": 3}, {})
    assert provider.calls == [["A", "B"]]
    assert gateway.stats().budget_left[0].left == 4


async def test_more_symbols_than_fit_into_an_answer_take_several_calls(clock: FakeClock) -> None:
    provider = All()
    await Gateway(provider, clock).fetch_many(["A", "B", "C"], M1, START, END)
    assert provider.calls == [["A", "B"], ["C"]]  # four bars each may come, and nine at most


async def test_a_symbol_that_is_not_known_spoils_no_other(clock: FakeClock) -> None:
    for kind in (One, All):
        answer = await Gateway(kind(B=InvalidSymbol("no B")), clock).fetch_many(["A", "B"], M1, START, END)
        assert counts(answer) == {"A": 3}
        assert kinds(answer) == {"B": InvalidSymbol}


async def test_what_fails_as_a_whole_fails_for_every_symbol_and_hurts_the_health(clock: FakeClock) -> None:
    gateway = Gateway(All(**{"*": ProviderDown("away")}), clock)
    answer = await gateway.fetch_many(["A", "B"], M1, START, END)
    assert (answer.table.num_rows, kinds(answer)) == (0, {"A": ProviderDown, "B": ProviderDown})
    assert gateway.stats().health_score < 1.0


async def test_bars_that_break_a_rule_are_left_out(clock: FakeClock) -> None:
    gateway = Gateway(All(A=minutes("A", price=-1.0)), clock)
    assert counts(await gateway.fetch_many(["A", "B"], M1, START, END)) == {"B": 3}
    assert gateway.stats().rejected_bars == 3
    only = await Gateway(All(A=minutes("A", price=-1.0)), clock).fetch_many(["A"], M1, START, END)
    assert kinds(only) == {"A": Malformed}


async def test_bars_outside_of_the_range_are_left_out(clock: FakeClock) -> None:
    answer = await Gateway(All(), clock).fetch_many(["A"], M1, START, END - timedelta(minutes=1))
    assert counts(answer) == {"A": 2}


async def test_a_call_a_symbol_costs_a_call_a_symbol(clock: FakeClock) -> None:
    gateway = Gateway(One(), clock, GatewayPolicy(budget=(Window(5, 60),)))
    assert counts(await gateway.fetch_many(["A", "B", "C"], M1, START, END)) == {"A": 3, "B": 3, "C": 3}
    assert gateway.stats().budget_left[0].left == 2


async def test_when_the_budget_is_used_up_the_rest_is_not_waited_for_one_by_one(clock: FakeClock) -> None:
    provider = One()
    policy = GatewayPolicy(budget=(Window(2, 3_600),), concurrency=1)
    answer = await Gateway(provider, clock, policy).fetch_many(["A", "B", "C", "D"], M1, START, END)
    assert counts(answer) == {"A": 3, "B": 3}
    assert kinds(answer) == {"C": RateLimited, "D": RateLimited}
    assert provider.calls == [["A"], ["B"]]


async def test_who_is_not_reached_in_time_is_told_so(clock: FakeClock) -> None:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    provider, policy = One(), GatewayPolicy(budget=(Window(1, 1),), concurrency=1)
    gateway = Gateway(provider, clock, policy, sleep=sleep)
    answer = await gateway.fetch_many(["A", "B", "C", "D"], M1, START, END, within_s=1.5)
    assert counts(answer) == {"A": 3, "B": 3, "C": 3}
    assert kinds(answer) == {"D": RateLimited}


async def test_other_calls_come_in_between(clock: FakeClock) -> None:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    provider, policy = One(), GatewayPolicy(budget=(Window(1, 1),), concurrency=2)
    gateway = Gateway(provider, clock, policy, sleep=sleep)
    many = asyncio.create_task(gateway.fetch_many(list("ABCDEFGH"), M1, START, END))
    await asyncio.sleep(0)
    await gateway.fetch("Z", M1, START, END)
    assert not many.done()
    await many
    assert provider.calls.index(["Z"]) <= 4


async def test_an_interval_that_is_not_offered_is_refused(clock: FakeClock) -> None:
    for kind in (One, All):
        with pytest.raises(InputError, match="offers 1m"):
            await Gateway(kind(), clock).fetch_many(["A"], Interval.H1, START, END)
