"""Indicators against values worked out by hand, and against TA-Lib where a shorter way is taken."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import talib

from tests.unit.training.features.walks import bars, numbers, walk
from training.features import NAMES, compute

# Close 101, 102, ... with high and low one above and below: an average over n bars lags by (n - 1) / 2.
RAMP = np.arange(101.0, 401.0)


def value(table: pa.Table, name: str, row: int = -1) -> float:
    return float(compute(table).values[row, NAMES.index(name)])


def ramp(row: int) -> tuple[pa.Table, float]:
    """The ramp's bars and its close on a row."""
    return bars(RAMP, open_=RAMP - 1, high=RAMP + 1, low=RAMP - 1), float(RAMP[row])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("close_to_sma_10", 200 / 195.5 - 1),  # the mean of 191..200
        ("close_to_sma_20", 200 / 190.5 - 1),
        ("close_to_sma_50", 200 / 175.5 - 1),
        ("close_to_ema_12", 200 / 194.5 - 1),  # started with a simple average, so its lag is exact
        ("close_to_ema_26", 200 / 187.5 - 1),
        ("macd_pct", 7 / 200),  # 194.5 - 187.5
        ("macd_signal_pct", 7 / 200),
        ("macd_hist_pct", 0.0),
        ("adx_14", 100.0),  # every move is up
        ("di_diff_14", 50.0),  # up-move 1 of a true range of 2
        ("aroon_osc_25", 100.0),  # newest high now, lowest low 25 bars ago
        ("linreg_slope_pct_14", 1 / 200),
        ("rsi_7", 100.0),
        ("stoch_k", 100 * 14 / 15),  # low 186, high 201, close 200
        ("stoch_d", 100 * 14 / 15),
        ("willr_14", -100 / 15),
        ("cci_20", 9.5 / (0.015 * 5)),  # typical price = close; mean distance of 1..20 from 10.5 is 5
        ("roc_1", 100 * (200 / 199 - 1)),
        ("roc_5", 100 * (200 / 195 - 1)),
        ("roc_21", 100 * (200 / 179 - 1)),
        ("ultosc", 50.0),  # buying pressure 1 of a true range of 2, in all three windows
        ("bop", 0.5),  # (200 - 199) / (201 - 199)
        ("natr_14", 100 * 2 / 200),
        ("trange_pct", 2 / 200),
        ("bb_width_20", 4 * np.sqrt((20**2 - 1) / 12) / 190.5),  # population deviation of 20 in a row
        ("mfi_14", 100.0),
        ("obv_chg_20", 1.0),
        ("vol_ratio_20", 1.0),
    ],
)
def test_a_steady_rise_gives_the_values_worked_out_by_hand(name: str, expected: float) -> None:
    table, close = ramp(99)
    assert close == 200
    assert value(table, name, 99) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_rsi_is_the_share_of_gains_smoothed_by_wilder() -> None:
    close = [10, 11, 10, 11, 10, 11, 10, 11, 12]
    assert value(bars(close), "rsi_7", 7) == pytest.approx(100 * 4 / 7)
    # gains (4/7 * 6 + 1) / 7 = 31/49, losses (3/7 * 6) / 7 = 18/49
    assert value(bars(close), "rsi_7", 8) == pytest.approx(100 * 31 / 49)


def test_bollinger_bands_take_the_population_deviation() -> None:
    close = [9, 11] * 10  # mean 10, deviation 1: bands 8 and 12
    assert value(bars(close), "bb_pctb_20") == pytest.approx(0.75)
    assert value(bars(close), "bb_width_20") == pytest.approx(0.4)


def test_true_range_reaches_back_to_the_close_before() -> None:
    table = bars([14, 10], open_=[14, 9], high=[14, 12], low=[14, 8])
    assert value(table, "trange_pct") == pytest.approx((14 - 8) / 10)
    assert value(table, "bop") == pytest.approx((10 - 9) / (12 - 8))


@pytest.mark.parametrize(("name", "returns"), [("vol_20", 20), ("vol_60", 60)])
def test_volatility_is_the_population_deviation_of_log_returns(name: str, returns: int) -> None:
    close = np.exp(np.resize([0.0, 0.01], returns + 1))  # +1 % and -1 % by turns
    assert value(bars(close), name) == pytest.approx(0.01, rel=1e-6)


def test_cci_measures_in_mean_absolute_deviations() -> None:
    # mean 10.05, mean distance (19 * 0.05 + 0.95) / 20 = 0.095
    assert value(bars([10.0] * 19 + [11.0]), "cci_20") == pytest.approx(0.95 / (0.015 * 0.095), rel=1e-6)


def test_stochastic_and_williams_look_at_the_range_of_14_bars() -> None:
    table = bars(np.full(30, 9.0), high=np.full(30, 12.0), low=np.full(30, 8.0))
    assert value(table, "stoch_k") == pytest.approx(25.0)
    assert value(table, "stoch_d") == pytest.approx(25.0)
    assert value(table, "willr_14") == pytest.approx(-75.0)


def test_volume_is_compared_with_its_mean() -> None:
    assert value(bars(RAMP[:20], volume=[10.0] * 19 + [30.0]), "vol_ratio_20") == pytest.approx(30 / 11)


def test_the_z_score_of_one_spike_is_the_largest_possible() -> None:
    # mean 11, deviation sqrt((49 * 1 + 49 * 49) / 50) = 7
    assert value(bars(RAMP[:50], volume=[10.0] * 49 + [60.0]), "vol_z_50") == pytest.approx(7.0)


def test_on_balance_volume_counts_rises_against_falls() -> None:
    close = [10.0, *np.cumsum([1] * 15 + [-1] * 5) + 10.0]
    assert value(bars(close), "obv_chg_20") == pytest.approx((15 - 5) / 20)


def test_money_flow_is_the_share_of_flow_on_rising_bars() -> None:
    close = [10.0, 12.0] * 8  # 14 changes: seven to 12, seven to 10, equal volume
    assert value(bars(close[:15]), "mfi_14") == pytest.approx(100 * 12 / (12 + 10))


def test_accumulation_settles_at_the_difference_of_the_lags() -> None:
    """Closing on the high adds a whole volume a bar; averages of 3 and 10 lag by 1 and 4.5 bars."""
    table = bars(RAMP, high=RAMP, low=RAMP - 2)
    assert value(table, "adosc_norm") == pytest.approx(3.5, rel=1e-6)


def test_a_walk_agrees_with_ta_lib_where_a_shorter_way_is_taken() -> None:
    table = walk(1000, seed=30)
    values = compute(table).values
    high, low, close = (numbers(table, column) for column in ("high", "low", "close"))
    slow_k, slow_d = talib.STOCH(high, low, close, fastk_period=14, slowk_period=3, slowd_period=3)
    upper, _, lower = talib.BBANDS(close, 20, 2, 2)
    expected = {
        "stoch_k": slow_k,
        "stoch_d": slow_d,
        "willr_14": talib.WILLR(high, low, close, 14),
        "stochrsi_14": talib.STOCHRSI(close, timeperiod=14, fastk_period=14, fastd_period=3)[0],
        "bb_pctb_20": (close - lower) / (upper - lower),
    }
    for name, line in expected.items():
        got = values[:, NAMES.index(name)]
        np.testing.assert_allclose(got, line, rtol=2e-6, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "name", ["adx_14", "di_diff_14", "cci_20", "ultosc", "mfi_14", "natr_14", "aroon_osc_25"]
)
def test_a_walk_agrees_with_ta_lib_in_other_units(name: str) -> None:
    """The power of two that prices are lifted by inside leaves no trace."""
    table = walk(1000, seed=31)
    h, l, c, v = (numbers(table, column) for column in ("high", "low", "close", "volume"))  # noqa: E741
    expected = {
        "adx_14": talib.ADX(h, l, c, 14),
        "di_diff_14": talib.PLUS_DI(h, l, c, 14) - talib.MINUS_DI(h, l, c, 14),
        "cci_20": talib.CCI(h, l, c, 20),
        "ultosc": talib.ULTOSC(h, l, c, 7, 14, 28),
        "mfi_14": talib.MFI(h, l, c, v, 14),
        "natr_14": talib.NATR(h, l, c, 14),
        "aroon_osc_25": talib.AROONOSC(h, l, 25),
    }[name]
    got = compute(table).values[:, NAMES.index(name)]
    np.testing.assert_array_equal(got, expected.astype(np.float32))
