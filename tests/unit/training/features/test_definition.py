"""Names, order, warm-up and hash of the feature set."""

from __future__ import annotations

import numpy as np

from tests.unit.training.features.walks import walk
from training import features
from training.features.definition import digest

# name, and the first row that has a value
EXPECTED = [
    ("close_to_sma_10", 9),
    ("close_to_sma_20", 19),
    ("close_to_sma_50", 49),
    ("close_to_ema_12", 11),
    ("close_to_ema_26", 25),
    ("macd_pct", 33),
    ("macd_signal_pct", 33),
    ("macd_hist_pct", 33),
    ("adx_14", 27),
    ("di_diff_14", 14),
    ("aroon_osc_25", 25),
    ("linreg_slope_pct_14", 13),
    ("rsi_7", 7),
    ("rsi_14", 14),
    ("rsi_28", 28),
    ("stoch_k", 17),
    ("stoch_d", 17),
    ("willr_14", 13),
    ("cci_20", 19),
    ("roc_1", 1),
    ("roc_5", 5),
    ("roc_21", 21),
    ("ultosc", 28),
    ("stochrsi_14", 29),
    ("bop", 0),
    ("natr_14", 14),
    ("bb_pctb_20", 19),
    ("bb_width_20", 19),
    ("trange_pct", 1),
    ("vol_20", 20),
    ("vol_60", 60),
    ("mfi_14", 14),
    ("obv_chg_20", 20),
    ("adosc_norm", 19),
    ("vol_ratio_20", 19),
    ("vol_z_50", 49),
    ("w_d1", 8),
    ("w_d2", 22),
    ("w_d3", 50),
    ("w_d4", 106),
    ("w_a4", 106),
    ("w_e1", 71),
    ("w_e2", 85),
    ("w_e3", 113),
    ("w_e4", 169),
    ("w_re1", 169),
    ("w_re2", 169),
    ("w_re3", 169),
    ("w_re4", 169),
    ("w_ent", 169),
]


def test_the_names_stand_in_the_published_order() -> None:
    assert list(features.NAMES) == [name for name, _ in EXPECTED]


def test_the_warm_up_table_is_the_published_one() -> None:
    assert list(features.WARMUP.items()) == EXPECTED


def test_every_feature_is_nan_exactly_before_its_warm_up() -> None:
    values = features.compute(walk(400, seed=1)).values
    for column, (name, first) in enumerate(EXPECTED):
        assert np.isnan(values[:first, column]).all(), name
        assert np.isfinite(values[first:, column]).all(), name


def test_the_first_complete_row_is_the_warm_up_of_the_result() -> None:
    result = features.compute(walk(200, seed=2))
    complete = np.isfinite(result.values).all(axis=1)
    assert result.warmup == 169
    assert list(np.flatnonzero(complete)) == list(range(169, 200))


def test_the_result_carries_shape_names_and_digest() -> None:
    result = features.compute(walk(30, seed=3))
    assert result.values.shape == (30, 50)
    assert result.values.dtype == np.float32
    assert result.names == features.NAMES
    assert result.digest == features.DIGEST


def test_the_digest_changes_with_a_name_the_order_and_the_version() -> None:
    names = ("a", "b")
    assert digest(names, 1) == digest(names, 1)
    assert len({digest(names, 1), digest(("b", "a"), 1), digest(("a", "c"), 1), digest(names, 2)}) == 4


def test_the_digest_of_stored_features_stays_what_it_is() -> None:
    """Stored rows and registered models carry it: a new value orphans them, so it must be meant."""
    assert features.DIGEST == "b4ac859b740f1f90"
