"""The limits of the providers' plans, and who shares them."""

from __future__ import annotations

import pytest

from cluster.errors import ConfigError
from cluster.providers import plans
from cluster.providers.budget import Window, seconds_per_call


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("binance", (Window(4_800, 60),)),
        ("yahoo", (Window(1, 1),)),
        ("alpha_vantage", (Window(1, 1.2), Window(25, 86_400))),
        ("finnhub", (Window(30, 1), Window(60, 60))),
        ("synthetic", ()),
    ],
)
def test_every_provider_has_the_windows_of_its_plan(name: str, budget: tuple[Window, ...]) -> None:
    assert plans.policy(name, {"api_key": "k"}).budget == budget


def test_another_plan_is_named_by_an_option() -> None:
    named = plans.policy("alpha_vantage", {"budget": [{"limit": 75, "seconds": 60}]})
    assert named.budget == (Window(75, 60),)
    assert plans.policy("alpha_vantage", {"budget": []}).budget == ()


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (7, "budget: "),
        ([{"limit": "many", "seconds": 1}], r"0\.limit: Input should be a valid integer"),
        ([{"limit": 0, "seconds": 1}], "must have limit >= 1"),
    ],
)
def test_a_plan_that_is_none_is_refused(budget: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plans.policy("yahoo", {"budget": budget})


def test_a_budget_is_shared_by_those_whom_the_provider_counts_together() -> None:
    one, other = {"api_key": "one"}, {"api_key": "other"}
    assert plans.scope("binance", one) == plans.scope("binance", other) == "binance"
    assert plans.scope("finnhub", one) == plans.scope("finnhub", dict(one))
    assert plans.scope("finnhub", one) != plans.scope("finnhub", other)
    assert plans.scope("finnhub", one).startswith("finnhub-")
    assert "one" not in plans.scope("finnhub", one)


def test_the_price_of_a_call_is_the_time_until_the_tightest_window_allows_another() -> None:
    price = {name: seconds_per_call(plan.budget, 2) for name, plan in plans.PLANS.items()}
    assert price == {"binance": 0.025, "yahoo": 2.0, "alpha_vantage": 6_912.0, "finnhub": 2.0}
    assert seconds_per_call((), 1) == 0.0
