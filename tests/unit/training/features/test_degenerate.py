"""Windows that say nothing give NaN, not a misleading number, and leave no trace afterwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.unit.training.features.walks import bars, numbers, times, walk, with_rows
from training.features import NAMES, compute
from training.features.degenerate import any_in_last, changed, hardly_traded

VOLUME_WINDOWS = {"mfi_14": 14, "obv_chg_20": 20, "adosc_norm": 20, "vol_ratio_20": 20, "vol_z_50": 50}

# feature -> flat bars after which it is undefined
NO_MOVE = {
    "adx_14": 14,
    "di_diff_14": 14,
    "rsi_7": 7,
    "rsi_14": 14,
    "rsi_28": 28,
    "stoch_k": 14,
    "stoch_d": 14,
    "willr_14": 14,
    "cci_20": 20,
    "ultosc": 7,
    "stochrsi_14": 14,
    "bop": 1,
    "bb_pctb_20": 20,
    "mfi_14": 14,
}


def column(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    return values[:, NAMES.index(name)]


@pytest.fixture(scope="module")
def halted() -> NDArray[np.float32]:
    """Features of 300 moving bars, 250 bars that all stand at the last close, then 300 moving ones."""
    table = walk(850, seed=20)
    close = numbers(table, "close")
    for name in ("open", "high", "low", "close"):
        after = numbers(table, name)[550:] * close[299] / close[549]
        table = with_rows(table, name, slice(300, 550), close[299])
        table = with_rows(table, name, slice(550, 850), after)
    return compute(table).values


@pytest.mark.parametrize(("name", "flat_bars"), NO_MOVE.items())
def test_a_feature_of_flat_prices_is_nan_instead_of_frozen(
    halted: NDArray[np.float32], name: str, flat_bars: int
) -> None:
    inside = column(halted, name)[300 + flat_bars : 550]
    assert np.isnan(inside).all()


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in NO_MOVE and not name.startswith("w_")]
)
def test_the_other_indicators_stay_defined_on_flat_prices(halted: NDArray[np.float32], name: str) -> None:
    assert np.isfinite(column(halted, name)[300:550]).all()


@pytest.mark.parametrize("name", ["w_re1", "w_re2", "w_re3", "w_re4", "w_ent"])
def test_energy_shares_of_no_energy_are_nan(halted: NDArray[np.float32], name: str) -> None:
    assert np.isnan(column(halted, name)[300 + 169 : 550]).all()


def test_log_energy_of_no_energy_is_the_logarithm_of_its_floor(halted: NDArray[np.float32]) -> None:
    assert column(halted, "w_e1")[300 + 71 : 550] == pytest.approx(-27.631021, abs=1e-5)  # ln 1e-12


def test_every_feature_is_back_when_prices_have_moved_for_a_whole_window(halted: NDArray[np.float32]) -> None:
    assert np.isfinite(halted[550 + 30 :]).all()


def test_bars_that_are_flat_from_the_start_have_no_oscillator() -> None:
    values = compute(bars(np.full(250, 50.0))).values
    for name in NO_MOVE:
        assert np.isnan(column(values, name)).all(), name


@pytest.mark.parametrize(("name", "window"), VOLUME_WINDOWS.items())
def test_volume_features_need_trading_in_half_of_their_window(name: str, window: int) -> None:
    """A halt of 100 bars from row 200 on: the last defined row is the one with half a window of halt."""
    values = compute(with_rows(walk(500, seed=21), "volume", slice(200, 300), 0.0)).values
    undefined = np.flatnonzero(np.isnan(column(values, name)[60:])) + 60
    assert list(undefined) == list(range(200 + window // 2, 300 + (window + 1) // 2 - 1))


@pytest.mark.parametrize(("name", "window"), VOLUME_WINDOWS.items())
def test_one_unknown_volume_blanks_a_volume_feature_for_its_window(name: str, window: int) -> None:
    values = compute(with_rows(walk(500, seed=22), "volume", [200], np.nan)).values
    undefined = np.flatnonzero(np.isnan(column(values, name)[60:])) + 60
    assert list(undefined) == list(range(200, 200 + window))


def test_unknown_volume_touches_no_other_feature() -> None:
    table = walk(400, seed=23)
    known, unknown = compute(table).values, compute(with_rows(table, "volume", slice(0, 400), np.nan)).values
    for name in NAMES:
        if name in VOLUME_WINDOWS:
            assert np.isnan(column(unknown, name)).all()
        else:
            np.testing.assert_array_equal(column(unknown, name), column(known, name))


def test_steady_volume_has_no_z_score() -> None:
    values = compute(with_rows(walk(200, seed=24), "volume", slice(0, 200), 1234.5)).values
    assert np.isnan(column(values, "vol_z_50")).all()


def test_other_units_of_price_and_volume_change_nothing() -> None:
    """Powers of two are exact; with other factors rounding breaks ties of the directional movement."""
    table = walk(1000, seed=25)
    np.testing.assert_array_equal(compute(times(table, 1024, 8)).values, compute(table).values)


@pytest.mark.parametrize(("price", "volume"), [(2.0**-40, 2.0**-20), (2.0**40, 2.0**40)])
def test_tiny_and_huge_prices_have_the_same_features(price: float, volume: float) -> None:
    """TA-Lib alone takes differences below 1e-14, and money flows below 1, for zero."""
    table = walk(400, seed=26)
    np.testing.assert_array_equal(compute(times(table, price, volume)).values, compute(table).values)


PRICES = st.one_of(
    st.floats(min_value=1e-12, max_value=1e12),
    st.sampled_from([1.0, 1.0, 1.0, 1.0 + 1e-10, 0.0, -1.0, np.nan, np.inf, 1e29, 1e-300, 5e-324]),
)
VOLUMES = st.one_of(
    st.floats(min_value=0, max_value=1e18),
    st.sampled_from([0.0, 0.0, 1.0, np.nan, -1.0, np.inf, 1e-300, 1e300]),
)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, (5, 260), elements=PRICES, fill=PRICES), arrays(np.float64, 260, elements=VOLUMES))
def test_no_input_makes_a_feature_larger_than_ten_thousand(
    drawn: NDArray[np.float64], volume: NDArray[np.float64]
) -> None:
    high, low = drawn[:4].max(axis=0), drawn[:4].min(axis=0)
    values = compute(bars(drawn[0], open_=drawn[1], high=high, low=low, volume=volume)).values
    assert not np.isinf(values).any()
    assert np.nanmax(np.abs(values), initial=0.0) <= 1e4


def test_a_crash_to_nothing_and_back_is_bounded() -> None:
    close = np.r_[np.full(100, 1e6), np.full(100, 1e-6), np.full(100, 1e6)] * np.linspace(1, 1.1, 300)
    values = compute(bars(close, high=close * 1.01, low=close * 0.99)).values
    assert np.nanmax(np.abs(values)) == 1e4


def test_any_in_last_looks_back_over_exactly_the_window() -> None:
    active = np.array([0, 1, 0, 0, 0, 0, 1, 0], dtype=np.bool_)
    assert any_in_last(active, 1).astype(int).tolist() == [0, 1, 0, 0, 0, 0, 1, 0]
    assert any_in_last(active, 3).astype(int).tolist() == [0, 1, 1, 1, 0, 0, 1, 1]
    assert any_in_last(active, 20).astype(int).tolist() == [0, 1, 1, 1, 1, 1, 1, 1]


def test_a_move_is_more_than_a_billionth_of_the_price() -> None:
    x = np.array([100.0, 100.0, 100.0 + 1e-8, 100.0 + 1e-6, 99.0])
    assert changed(x).tolist() == [False, False, False, True, True]


def test_half_of_the_window_traded_is_enough() -> None:
    traded = np.array([1, 1, 0, 0, 0, 1, 1, 1], dtype=np.bool_)
    known = np.ones(8, dtype=np.bool_)
    assert hardly_traded(traded, known, 4)[3:].tolist() == [False, True, True, False, False]
