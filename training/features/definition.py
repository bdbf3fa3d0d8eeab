"""What the 50 features are called, in which order they stand, and from which bar on each one exists."""

from __future__ import annotations

import hashlib
import json

DEFINITION_VERSION = 1
"""Raise it with every change of a formula, a window, a filter or a masking rule: it changes `DIGEST`."""

TREND = {
    "close_to_sma_10": 9,
    "close_to_sma_20": 19,
    "close_to_sma_50": 49,
    "close_to_ema_12": 11,
    "close_to_ema_26": 25,
    "macd_pct": 33,
    "macd_signal_pct": 33,
    "macd_hist_pct": 33,
    "adx_14": 27,
    "di_diff_14": 14,
    "aroon_osc_25": 25,
    "linreg_slope_pct_14": 13,
}
MOMENTUM = {
    "rsi_7": 7,
    "rsi_14": 14,
    "rsi_28": 28,
    "stoch_k": 17,
    "stoch_d": 17,
    "willr_14": 13,
    "cci_20": 19,
    "roc_1": 1,
    "roc_5": 5,
    "roc_21": 21,
    "ultosc": 28,
    "stochrsi_14": 29,
    "bop": 0,
}
VOLATILITY = {
    "natr_14": 14,
    "bb_pctb_20": 19,
    "bb_width_20": 19,
    "trange_pct": 1,
    "vol_20": 20,
    "vol_60": 60,
}
VOLUME = {
    "mfi_14": 14,
    "obv_chg_20": 20,
    "adosc_norm": 19,
    "vol_ratio_20": 19,
    "vol_z_50": 49,
}
WAVELET = {
    "w_d1": 8,
    "w_d2": 22,
    "w_d3": 50,
    "w_d4": 106,
    "w_a4": 106,
    "w_e1": 71,
    "w_e2": 85,
    "w_e3": 113,
    "w_e4": 169,
    "w_re1": 169,
    "w_re2": 169,
    "w_re3": 169,
    "w_re4": 169,
    "w_ent": 169,
}

WARMUP: dict[str, int] = {**TREND, **MOMENTUM, **VOLATILITY, **VOLUME, **WAVELET}
"""Feature name -> first valid bar (0-based) on which it has a value; every bar before it is NaN."""

NAMES: tuple[str, ...] = tuple(WARMUP)
"""The 36 indicators (trend, momentum, volatility, volume), then the 14 wavelet features."""

WARMUP_BARS = max(WARMUP.values())
"""First valid bar on which the whole vector exists."""

MIN_BARS = 512
"""Bars that the last row needs to agree with the full history to 1e-6 standard deviations.

The slowest memory is Wilder's smoothing of `rsi_28`, which forgets by (27/28) a bar.
"""

MAX_ABS = 1e4
"""No feature is ever larger than this in absolute value."""


def digest(names: tuple[str, ...], version: int) -> str:
    """Name a feature set: equal only if names, order and definition version are equal."""
    return hashlib.sha256(json.dumps([version, *names]).encode()).hexdigest()[:16]


DIGEST = digest(NAMES, DEFINITION_VERSION)
