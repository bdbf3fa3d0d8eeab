"""What `compute` takes and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cluster.errors import BadBars
from tests.unit.training.features.walks import walk
from training.features import compute

TABLE = walk(300, seed=60)


def test_a_pandas_frame_gives_the_same_as_the_arrow_table() -> None:
    np.testing.assert_array_equal(compute(TABLE.to_pandas()).values, compute(TABLE).values)


def test_extra_columns_and_their_order_do_not_matter() -> None:
    shuffled = TABLE.select(TABLE.column_names[::-1]).append_column("symbol", pa.array(["SPX"] * 300))
    np.testing.assert_array_equal(compute(shuffled).values, compute(TABLE).values)


def test_a_table_in_several_chunks_gives_the_same() -> None:
    chunked = pa.concat_tables([TABLE.slice(0, 100), TABLE.slice(100, 1), TABLE.slice(101)])
    np.testing.assert_array_equal(compute(chunked).values, compute(TABLE).values)


def test_null_and_nan_volume_both_mean_unknown() -> None:
    unknown = pa.array([None] * 300, pa.float64())
    position = TABLE.column_names.index("volume")
    null = compute(TABLE.set_column(position, "volume", unknown)).values
    nan = compute(TABLE.set_column(position, "volume", pa.array(np.full(300, np.nan)))).values
    np.testing.assert_array_equal(null, nan)


def test_whole_numbers_are_numbers() -> None:
    volume = TABLE["volume"].cast(pa.int64())
    table = TABLE.set_column(TABLE.column_names.index("volume"), "volume", volume)
    np.testing.assert_array_equal(compute(table).values, compute(TABLE).values)


def test_the_input_is_left_as_it_was() -> None:
    frame = TABLE.to_pandas()
    before = frame.copy(deep=True)
    compute(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_no_bars_give_no_rows() -> None:
    assert compute(TABLE.slice(0, 0)).values.shape == (0, 50)


def test_bars_that_are_all_invalid_give_rows_of_nan() -> None:
    frame = TABLE.to_pandas()
    frame["close"] = np.nan
    values = compute(frame).values
    assert values.shape == (300, 50)
    assert np.isnan(values).all()


def test_a_repeated_bar_is_refused_with_its_row() -> None:
    doubled = pa.concat_tables([TABLE.slice(0, 8), TABLE.slice(7)])
    with pytest.raises(BadBars, match=r"row 8 .* drop duplicates"):
        compute(doubled)


def test_bars_out_of_order_are_refused_with_their_row() -> None:
    swapped = pa.concat_tables([TABLE.slice(0, 5), TABLE.slice(6, 1), TABLE.slice(5, 1), TABLE.slice(7)])
    with pytest.raises(BadBars, match=r"oldest first.* row 6 has"):
        compute(swapped)


def test_newest_first_is_refused() -> None:
    with pytest.raises(BadBars, match="oldest first"):
        compute(TABLE.to_pandas().iloc[::-1])


def test_a_missing_time_is_refused() -> None:
    frame = TABLE.to_pandas()
    frame.loc[3, "ts"] = pd.NaT
    with pytest.raises(BadBars, match="missing on 1 bars"):
        compute(frame)


@pytest.mark.parametrize("name", ["ts", "open", "volume"])
def test_a_missing_column_is_named(name: str) -> None:
    with pytest.raises(BadBars, match=f"missing: {name}"):
        compute(TABLE.drop_columns([name]))


def test_a_column_of_text_is_refused_by_name() -> None:
    table = TABLE.set_column(TABLE.column_names.index("close"), "close", pa.array(["ten"] * 300))
    with pytest.raises(BadBars, match="column close holds string"):
        compute(table)
