"""No feature knows a later bar, and the last 512 bars are enough for the newest row."""

from __future__ import annotations

import arch.data.sp500
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.training.features.walks import numbers, walk, with_rows
from training.features import MIN_BARS, NAMES, WARMUP, compute

WALK = walk(3000, seed=10)
WALK_VALUES = compute(WALK).values


@pytest.fixture(scope="module")
def index_bars() -> pd.DataFrame:
    """Daily S&P 500 bars 1999-2018, as the arch package ships them."""
    frame = arch.data.sp500.load().rename_axis("ts").reset_index()
    return frame.rename(columns=str.lower)


@settings(max_examples=40, deadline=None)
@given(st.integers(min_value=0, max_value=3000))
def test_cutting_the_series_leaves_earlier_rows_bit_equal(length: int) -> None:
    cut = compute(WALK.slice(0, length)).values
    np.testing.assert_array_equal(cut, WALK_VALUES[:length])


@settings(max_examples=20, deadline=None)
@given(st.integers(min_value=1, max_value=2999), st.integers(min_value=0, max_value=2**32 - 1))
def test_another_future_leaves_earlier_rows_bit_equal(length: int, seed: int) -> None:
    future = walk(3000, seed=seed, step=0.05).slice(length)
    values = compute(pa.concat_tables([WALK.slice(0, length), future])).values
    np.testing.assert_array_equal(values[:length], WALK_VALUES[:length])


def test_a_later_bad_bar_or_unknown_volume_leaves_earlier_rows_bit_equal() -> None:
    spoiled = with_rows(with_rows(WALK, "close", [2000], np.nan), "volume", [2100], np.nan)
    np.testing.assert_array_equal(compute(spoiled).values[:2000], WALK_VALUES[:2000])


def test_cutting_real_bars_leaves_earlier_rows_bit_equal(index_bars: pd.DataFrame) -> None:
    values = compute(index_bars).values
    for length in np.random.default_rng(0).integers(1, len(index_bars), 20):
        np.testing.assert_array_equal(compute(index_bars.iloc[:length]).values, values[:length])


def test_real_bars_have_every_feature_after_the_warm_up(index_bars: pd.DataFrame) -> None:
    values = compute(index_bars).values
    assert np.isfinite(values[169:]).all()


def test_the_last_512_bars_of_a_walk_give_the_newest_row() -> None:
    _assert_online_is_batch(WALK, 100)


def test_the_last_512_real_bars_give_the_newest_row(index_bars: pd.DataFrame) -> None:
    _assert_online_is_batch(pa.Table.from_pandas(index_bars, preserve_index=False), 100)


def test_fewer_bars_than_the_minimum_do_not_give_the_newest_row() -> None:
    """The test of the test above: at 128 bars the slowest average still remembers its start."""
    short = compute(WALK.slice(len(WALK_VALUES) - 128)).values[-1]
    slowest = NAMES.index("rsi_28")
    assert abs(short[slowest] - WALK_VALUES[-1, slowest]) > 1e-3


def _assert_online_is_batch(table: pa.Table, ends: int) -> None:
    batch = compute(table).values.astype(np.float64)
    spread = np.nanstd(batch, axis=0)
    for end in np.random.default_rng(1).integers(MIN_BARS, len(batch), ends):
        online = compute(table.slice(end - MIN_BARS, MIN_BARS)).values[-1]
        # one unit in the last place of float32 is allowed on top: it is the resolution of the result
        allowed = 1e-6 * spread + np.spacing(np.abs(online))
        worst = np.argmax(np.abs(online - batch[end - 1]) / allowed)
        assert np.all(np.abs(online - batch[end - 1]) <= allowed), NAMES[worst]


def test_an_invalid_bar_is_a_nan_row_and_otherwise_as_if_it_were_not_there() -> None:
    spoiled = with_rows(WALK, "high", [700], np.nan)
    without = pa.concat_tables([WALK.slice(0, 700), WALK.slice(701)])
    values = compute(spoiled).values
    assert np.isnan(values[700]).all()
    np.testing.assert_array_equal(np.delete(values, 700, axis=0), compute(without).values)


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
@pytest.mark.parametrize("price", [np.nan, np.inf, 0.0, -1.0, 1e30])
def test_a_price_that_is_no_price_spoils_its_own_row_only(name: str, price: float) -> None:
    values = compute(with_rows(WALK.slice(0, 700), name, [300], price)).values
    incomplete = np.isnan(values).any(axis=1)
    assert list(np.flatnonzero(incomplete)) == [*range(169), 300]


def test_high_below_low_spoils_its_own_row_only() -> None:
    low = float(numbers(WALK, "low")[300])
    values = compute(with_rows(WALK.slice(0, 700), "high", [300], low * 0.999)).values
    assert list(np.flatnonzero(np.isnan(values).any(axis=1))) == [*range(169), 300]


def test_the_warm_up_counts_valid_bars() -> None:
    values = compute(with_rows(WALK.slice(0, 300), "close", slice(0, 5), np.nan)).values
    for column, first in enumerate(WARMUP.values()):
        assert np.flatnonzero(np.isfinite(values[:, column]))[0] == first + 5
