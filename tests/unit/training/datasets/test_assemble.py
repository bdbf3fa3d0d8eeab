from __future__ import annotations

import numpy as np
import pytest

from cluster.errors import NotEnoughHistory
from tests.unit.training import samples
from training.datasets import targets
from training.datasets.assemble import SymbolRows, assemble


def rows(symbol: str, close: list[float], start: int = 0, warmup: int = 1) -> SymbolRows:
    ts = samples.days(start + len(close))[start:]
    values = np.arange(len(close), dtype=np.float32)[:, None]
    return SymbolRows(symbol, ts, np.array(close), values, warmup)


def test_the_target_is_the_log_return_of_the_following_bar() -> None:
    close = np.array([100.0, 110.0, 99.0])

    np.testing.assert_allclose(targets.future_return(close), [np.log(1.1), np.log(0.9), np.nan])
    np.testing.assert_allclose(targets.future_return(close, 2), [np.log(0.99), np.nan, np.nan])
    np.testing.assert_allclose(targets.past_return(close), [np.nan, np.log(1.1), np.log(0.9)])


def test_standardised_targets_are_cut_at_five() -> None:
    z = targets.standardise(np.array([0.02, -1.0]), np.array([0.01, 0.01]))

    assert z.tolist() == [2.0, -5.0]


def test_a_row_is_usable_when_it_is_warm_and_its_next_bar_is_known() -> None:
    data = assemble([rows("A", [1, 2, 3, 4]), rows("B", [1, 2, 3])], ("f",), "d", "1d")

    assert data.rows.tolist() == [1, 2, 5]
    assert data.first.tolist() == [0, 0, 0, 0, 4, 4, 4]
    assert data.symbols == ("A", "B")
    assert np.isnan(data.target[[3, 6]]).all()


def test_spans_lie_on_one_time_line_of_all_symbols() -> None:
    data = assemble([rows("A", [1, 2, 3, 4]), rows("B", [1, 2, 3], start=2)], ("f",), "d", "1d")

    assert data.spans.start.tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert data.spans.end.tolist() == [1, 2, 3, 3, 3, 4, 4]


def test_without_a_usable_row_it_says_so() -> None:
    with pytest.raises(NotEnoughHistory, match=r"no usable row in 2 bars of \['A'\]"):
        assemble([rows("A", [1, 2], warmup=5)], ("f",), "d", "1d")
