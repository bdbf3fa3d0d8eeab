from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage.features import FEATURE_COLUMNS, FEATURE_SCHEMA
from jobs.features import stale
from training.features import DIGEST, NAMES, Features

Rows = np.ndarray[tuple[int, int], np.dtype[np.float32]]


def days(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.datetime64]]:
    return np.datetime64("2020-01-01", "us") + np.array(numbers, dtype="timedelta64[D]")


def rows(*first: float) -> Rows:
    """Feature rows that are told apart by their first feature."""
    values = np.full((len(first), len(NAMES)), 0.5, np.float32)
    values[:, 0] = first
    return values


def stored(ts: np.ndarray[tuple[int], np.dtype[np.datetime64]], values: Rows) -> pa.Table:
    """`values` as the database gives them back: columns in its own order, NaN as null."""
    opens = pa.array(ts).cast(FEATURE_SCHEMA.field("timestamp").type)
    columns = [values[:, NAMES.index(name)] for name in FEATURE_COLUMNS]
    arrays = [pa.array(column, mask=np.isnan(column)) for column in columns]
    return pa.Table.from_arrays([opens, *arrays], schema=FEATURE_SCHEMA)


def test_with_nothing_stored_every_row_is_stale() -> None:
    nothing = stored(days(), rows())
    assert stale(nothing, days(0, 1), Features(rows(1, 2))).tolist() == [True, True]


def test_new_and_changed_rows_are_stale_and_nan_equals_null() -> None:
    have = stored(days(0, 1, 3), rows(np.nan, 1, 3))
    now = Features(rows(np.nan, 1.5, 2, 3, 4))
    assert stale(have, days(0, 1, 2, 3, 4), now).tolist() == [False, True, True, False, True]


def test_a_value_that_becomes_known_or_unknown_is_stale() -> None:
    have = stored(days(0, 1), rows(np.nan, 1))
    assert stale(have, days(0, 1), Features(rows(0, np.nan))).tolist() == [True, True]


def test_a_change_of_the_last_feature_is_seen() -> None:
    values = rows(1, 2)
    values[1, -1] = 0.75
    assert stale(stored(days(0, 1), rows(1, 2)), days(0, 1), Features(values)).tolist() == [False, True]


@given(
    have=st.dictionaries(st.integers(0, 12), st.sampled_from([1.0, 2.0, float("nan")])),
    now=st.dictionaries(st.integers(0, 12), st.sampled_from([1.0, 2.0, float("nan")])),
)
def test_stale_is_what_differs_from_what_is_stored(have: dict[int, float], now: dict[int, float]) -> None:
    table = stored(days(*sorted(have)), rows(*(have[day] for day in sorted(have))))
    computed = Features(rows(*(now[day] for day in sorted(now))), digest=DIGEST)
    wrong = [day not in have or repr(have[day]) != repr(now[day]) for day in sorted(now)]
    assert stale(table, days(*sorted(now)), computed).tolist() == wrong
