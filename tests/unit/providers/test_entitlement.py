"""How far a refusal of the plan reaches."""

from __future__ import annotations

import pytest

from cluster.market.intervals import Interval
from cluster.providers import entitlement
from cluster.providers.entitlement import Entitlement

DAY_S = 86_400.0
D1, M1 = Interval.D1, Interval.M1


@pytest.fixture
def plan() -> Entitlement:
    return Entitlement(DAY_S)


def refuse(plan: Entitlement, *symbols: str | None, now_s: float = 0.0) -> None:
    for symbol in symbols:
        plan.refused(D1, symbol, now_s)


def test_a_refused_symbol_takes_nothing_away_from_others_and_from_other_intervals(plan: Entitlement) -> None:
    refuse(plan, "VOD.L")
    assert not plan.includes(D1, "VOD.L", 1.0)
    assert plan.includes(D1, "AAPL", 1.0)
    assert plan.includes(M1, "VOD.L", 1.0)
    assert plan.includes("quote", "VOD.L", 1.0)
    assert plan.off(1.0) == frozenset()


def test_three_refused_symbols_speak_for_all_when_none_was_answered(plan: Entitlement) -> None:
    refuse(plan, "AAPL", "MSFT")
    assert plan.includes(D1, "NVDA", 1.0)
    refuse(plan, "NVDA")
    assert not plan.includes(D1, "AMZN", 1.0)
    assert plan.off(1.0) == {D1}
    assert plan.includes(M1, "AMZN", 1.0)


def test_one_symbol_that_is_refused_often_speaks_for_itself_only(plan: Entitlement) -> None:
    refuse(plan, "VOD.L", "VOD.L", "VOD.L", "VOD.L")
    assert plan.includes(D1, "AAPL", 1.0)


def test_no_number_of_refused_symbols_speaks_for_all_within_a_day_of_an_answer(plan: Entitlement) -> None:
    plan.answered(D1, "AAPL", 0.0)
    refuse(plan, "VOD.L", "BP.L", "SAP.DE", "BHP.AX", now_s=10.0)
    assert plan.includes(D1, "MSFT", DAY_S - 1)
    assert not plan.includes(D1, "VOD.L", DAY_S - 1)
    assert not plan.includes(D1, "MSFT", DAY_S)


def test_an_answer_to_a_call_that_was_under_way_gives_the_others_back(plan: Entitlement) -> None:
    refuse(plan, "VOD.L", "BP.L", "SAP.DE")
    plan.answered(D1, "AAPL", 1.0)
    assert plan.off(1.0) == frozenset()
    assert not plan.includes(D1, "VOD.L", 1.0)


def test_after_a_day_one_call_finds_out_whether_the_plan_still_lacks_it(plan: Entitlement) -> None:
    refuse(plan, "AAPL")
    refuse(plan, "MSFT", "NVDA", now_s=100.0)
    assert plan.off(DAY_S - 1) == {D1}
    assert plan.includes(D1, "AAPL", DAY_S)
    refuse(plan, "AAPL", now_s=DAY_S)
    assert plan.off(DAY_S) == {D1}


def test_what_is_asked_without_a_symbol_is_refused_at_once(plan: Entitlement) -> None:
    plan.refused("limits", None, 0.0)
    assert not plan.includes("limits", None, DAY_S - 1)
    assert plan.includes("limits", None, DAY_S)


def test_so_many_symbols_are_kept_and_no_more(plan: Entitlement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entitlement, "_MOST_SYMBOLS", 2)
    plan.answered(D1, "AAPL", 0.0)
    refuse(plan, "VOD.L", "BP.L", "SAP.DE")
    assert [plan.includes(D1, symbol, 1.0) for symbol in ("VOD.L", "BP.L", "SAP.DE")] == [True, False, False]
