from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.datasets.windows import BLANK, fit_window, gather, observed_rows, row_numbers

FIRST = np.array([0, 0, 0, 3, 3, 3, 3], dtype=np.int64)  # two symbols: rows 0-2 and 3-6
VALUES = np.arange(7, dtype=np.float32)[:, None] * 10


def test_a_window_ends_at_its_row_and_never_reaches_into_another_symbol() -> None:
    rows = row_numbers(FIRST, np.array([2, 4, 6]), 3)

    assert rows.tolist() == [[0, 1, 2], [BLANK, 3, 4], [4, 5, 6]]


def test_a_window_is_cut_to_its_newest_rows() -> None:
    rows = row_numbers(FIRST, np.array([2, 6]), 3, np.array([1, 2]))

    assert rows.tolist() == [[BLANK, BLANK, 2], [BLANK, 5, 6]]


def test_absent_rows_are_nan() -> None:
    [window] = gather(VALUES, FIRST, np.array([3]), 2)

    np.testing.assert_array_equal(window, np.array([[np.nan], [30.0]], np.float32))


def test_gathering_leaves_the_values_as_they_were() -> None:
    before = VALUES.copy()

    gather(VALUES, FIRST, np.array([0, 3]), 4)

    np.testing.assert_array_equal(VALUES, before)


def test_a_short_history_gets_absent_rows_in_front_and_a_long_one_loses_its_oldest() -> None:
    history = np.array([[[1.0], [2.0]]], np.float32)

    np.testing.assert_array_equal(fit_window(history, 3), [[[np.nan], [1.0], [2.0]]])
    np.testing.assert_array_equal(fit_window(history, 1), [[[2.0]]])


def test_a_row_counts_as_observed_when_one_value_is_there() -> None:
    nan = np.nan
    windows = np.array([[[nan, nan], [1, nan]], [[1, 2], [3, 4]], [[nan, nan], [nan, nan]]], np.float32)

    assert observed_rows(windows).tolist() == [1, 2, 0]


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), window=st.integers(1, 12))
def test_every_window_row_belongs_to_the_symbol_of_its_end_and_is_not_later(
    sizes: list[int], window: int
) -> None:
    symbol = np.repeat(np.arange(len(sizes)), sizes)
    first = np.searchsorted(symbol, symbol).astype(np.int64)
    ends = np.arange(len(symbol), dtype=np.int64)

    rows = row_numbers(first, ends, window)

    for end, window_rows in zip(ends, rows, strict=True):
        present = window_rows[window_rows != BLANK]
        assert present[-1] == end
        assert (symbol[present] == symbol[end]).all()
        assert len(present) == min(window, end - first[end] + 1)
