from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ConfigError
from cluster.market.symbols import Instrument, Tier
from cluster.market.tiers import TIERS, Change, Limits, Rule, changes, tier_of

RULE = Rule(
    {"T0": Limits(10e6, 100e9), "T1": Limits(1e6, 10e9), "T2": Limits(100e3, 1e9)},
    slack=0.2,
)
NAMES = st.sampled_from(TIERS)
AMOUNTS = st.none() | st.floats(0, 1e13)


def instrument(tier: Tier, adv_21d: float | None, mkt_cap: float | None, currency: str = "USD") -> Instrument:
    return Instrument(
        "X", "NYSE", "equity", "XNYS", tier=tier, adv_21d=adv_21d, mkt_cap=mkt_cap, currency=currency
    )


@pytest.mark.parametrize(
    ("tier", "adv_21d", "mkt_cap", "wanted"),
    [
        ("T3", 10e6, 100e9, "T0"),  # both limits are reached
        ("T3", 10e6, 99e9, "T1"),  # one of them is not
        ("T3", 99e3, 5e12, "T3"),  # large, but hardly traded
        ("T3", None, 5e12, "T3"),  # nothing moves up on what is not known
        ("T3", 50e6, None, "T3"),
        ("T0", 8e6, 80e9, "T0"),  # a fifth below: it stays
        ("T0", 7.9e6, 300e9, "T1"),  # more than a fifth below
        ("T0", 0, 300e9, "T3"),
        ("T0", None, None, "T0"),  # nothing is known, so nothing speaks against it
        ("T0", 500e3, None, "T2"),  # what is known does
        ("T1", 10e6, 100e9, "T0"),
        ("T1", 9e6, 100e9, "T1"),  # within the slack of a better tier is not reaching it
    ],
)
def test_the_tier_follows_from_what_is_known_and_the_tier_that_it_has(
    tier: Tier, adv_21d: float | None, mkt_cap: float | None, wanted: Tier
) -> None:
    assert tier_of(instrument(tier, adv_21d, mkt_cap), RULE) == wanted


def test_a_market_capitalisation_in_another_currency_counts_as_unknown() -> None:
    assert tier_of(instrument("T3", 50e6, 30e12, "JPY"), RULE) == "T3"
    assert tier_of(instrument("T0", 50e6, 1.0, "JPY"), RULE) == "T0"


@given(NAMES, AMOUNTS, AMOUNTS)
def test_the_tier_that_was_found_stays(tier: Tier, adv_21d: float | None, mkt_cap: float | None) -> None:
    first = tier_of(instrument(tier, adv_21d, mkt_cap), RULE)
    assert tier_of(instrument(first, adv_21d, mkt_cap), RULE) == first


@given(st.lists(st.floats(0.8, 1.0, exclude_max=True), min_size=1, max_size=20), NAMES)
def test_a_symbol_that_moves_within_the_slack_changes_its_tier_once_at_most(
    shares: list[float], tier: Tier
) -> None:
    seen = [tier]
    for share in shares:
        seen.append(tier_of(instrument(seen[-1], 10e6 * share, 100e9), RULE))
    assert len(set(seen[1:])) == 1


@given(NAMES, AMOUNTS)
def test_a_symbol_of_which_one_value_is_not_known_never_moves_up(tier: Tier, amount: float | None) -> None:
    for half_known in (instrument(tier, amount, None), instrument(tier, None, amount)):
        assert TIERS.index(tier_of(half_known, RULE)) >= TIERS.index(tier)


def test_only_symbols_that_move_are_changes() -> None:
    stays, moves = instrument("T3", None, None), replace(instrument("T2", 10e6, 2e12), symbol="AAPL")
    assert changes([stays, moves], RULE) == [Change("AAPL", "T2", "T0", 10e6, 2e12)]


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected limits of T0, T1, T2"):
        Rule({"T0": Limits(1, 1)}, 0.2)
    with pytest.raises(ConfigError, match="the limits of T1 are above those of T0"):
        Rule({"T0": Limits(1, 9), "T1": Limits(2, 8), "T2": Limits(0, 0)}, 0.2)
    with pytest.raises(ConfigError, match="tier_slack = 1"):
        Rule(RULE.limits, 1.0)
