"""The 36 indicators, scale-free, one pure function a family; TA-Lib in float64 on valid bars only.

Each function takes the arrays of one symbol, oldest first, and returns its features in the order of
`training.features.definition`. The value at row t depends on rows up to t only. Rows before the warm-up may
hold numbers; `training.features.compute` blanks them.

TA-Lib treats anything below 1e-14 as zero and money flows below 1 as none, which breaks prices like 1e-8.
`Bars.scaled` therefore multiplies by a power of two, which is exact in floating point and cancels in every
feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import talib

from training.features.degenerate import (
    TINY,
    BoolArray,
    FloatArray,
    blank,
    changed,
    hardly_traded,
    without_move,
)

SCALE = 2.0**40


@dataclass(frozen=True, slots=True)
class Bars:
    """Valid bars of one symbol, each field of shape (T,); volume is 0 where `known` says it is unknown."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    known: BoolArray

    @classmethod
    def scaled(
        cls, open_: FloatArray, high: FloatArray, low: FloatArray, close: FloatArray, volume: FloatArray
    ) -> Self:
        """Lift prices and volumes out of TA-Lib's absolute thresholds; NaN or negative volume is unknown."""
        known = volume >= 0
        volume = np.where(known, volume, 0.0)
        return cls(open_ * SCALE, high * SCALE, low * SCALE, close * SCALE, volume * SCALE, known)


def log_returns(close: FloatArray) -> FloatArray:
    """Return ln(close_t / close_(t-1)), shape (T,); 0 on the first bar, which has no return."""
    returns = np.zeros(len(close))
    np.log(close[1:] / close[:-1], out=returns[1:])
    return returns


def trend(bars: Bars) -> list[FloatArray]:
    """Distances from moving averages, MACD, directional movement, Aroon and the regression slope."""
    h, l, c = bars.high, bars.low, bars.close  # noqa: E741
    averages = [talib.SMA(c, 10), talib.SMA(c, 20), talib.SMA(c, 50), talib.EMA(c, 12), talib.EMA(c, 26)]
    still = without_move(changed(h) | changed(l) | changed(c), 14)
    return [
        *(c / average - 1 for average in averages),
        *(line / c for line in talib.MACD(c, 12, 26, 9)),
        blank(talib.ADX(h, l, c, 14), still),
        blank(talib.PLUS_DI(h, l, c, 14) - talib.MINUS_DI(h, l, c, 14), still),
        talib.AROONOSC(h, l, 25),
        talib.LINEARREG_SLOPE(c, 14) / c,
    ]


def momentum(bars: Bars) -> list[FloatArray]:
    """RSI, stochastics, Williams %R, CCI, rates of change, the ultimate oscillator, balance of power."""
    o, h, l, c = bars.open, bars.high, bars.low, bars.close  # noqa: E741
    moved = changed(c)
    rsi = {rows: talib.RSI(c, rows) for rows in (7, 14, 28)}
    stochastic_rsi = blank(_stochastic_rsi(rsi[14]), without_move(moved, 14))
    return [
        *(blank(line, without_move(moved, rows)) for rows, line in rsi.items()),
        *_stochastic(h, l, c),
        blank(talib.CCI(h, l, c, 20), without_move(changed(h + l + c), 19)),
        talib.ROC(c, 1),
        talib.ROC(c, 5),
        talib.ROC(c, 21),
        blank(talib.ULTOSC(h, l, c, 7, 14, 28), without_move(talib.TRANGE(h, l, c) > TINY * c, 7)),
        stochastic_rsi,
        blank(talib.BOP(o, h, l, c), h - l <= TINY * c),
    ]


def volatility(bars: Bars) -> list[FloatArray]:
    """Average and single true range, Bollinger bands, standard deviations of the log return per bar."""
    h, l, c = bars.high, bars.low, bars.close  # noqa: E741
    upper, middle, lower = talib.BBANDS(c, 20, 2, 2, talib.MA_Type.SMA)
    width = upper - lower
    flat = without_move(changed(c), 19) | (width <= TINY * c)
    returns = log_returns(c)[1:]  # without the first bar: it has no return
    return [
        talib.NATR(h, l, c, 14),
        blank((c - lower) / width, flat),
        width / middle,
        talib.TRANGE(h, l, c) / c,
        np.concatenate(([np.nan], talib.STDDEV(returns, 20, 1))),
        np.concatenate(([np.nan], talib.STDDEV(returns, 60, 1))),
    ]


def volume(bars: Bars) -> list[FloatArray]:
    """Money flow, on-balance volume, accumulation/distribution, volume against its mean.

    NaN where fewer than half of the bars in the window traded, or the volume of one of them is unknown.
    """
    h, l, c, v = bars.high, bars.low, bars.close, bars.volume  # noqa: E741
    traded = v > 0
    idle = {rows: hardly_traded(traded, bars.known, rows) for rows in (14, 20, 50)}
    mean_20, mean_50, deviation = talib.SMA(v, 20), talib.SMA(v, 50), talib.STDDEV(v, 50, 1)
    no_flow = without_move(changed(h + l + c) & traded, 14)
    steady = without_move(changed(v), 49) | (deviation <= TINY * mean_50)
    return [
        blank(talib.MFI(h, l, c, v, 14), idle[14] | no_flow),
        blank(_change(talib.OBV(c, v), 20) / (20 * mean_20), idle[20]),
        blank(talib.ADOSC(h, l, c, v, 3, 10) / mean_20, idle[20]),
        blank(v / mean_20, idle[20]),
        blank((v - mean_50) / deviation, idle[50] | steady),
    ]


def _change(x: FloatArray, rows: int) -> FloatArray:
    change = np.full(len(x), np.nan)
    np.subtract(x[rows:], x[:-rows], out=change[rows:])
    return change


def _stochastic(high: FloatArray, low: FloatArray, close: FloatArray) -> list[FloatArray]:
    """STOCH(14, 3, 3) %K and %D and WILLR(14): three views of one range, which is computed once."""
    top, bottom = talib.MAX(high, 14), talib.MIN(low, 14)
    width = top - bottom
    blank(width, width <= TINY * close)
    slow_k = _mean_of_3((close - bottom) / width * 100)
    return [slow_k, _mean_of_3(slow_k), (close - top) / width * 100]


def _stochastic_rsi(rsi: FloatArray) -> FloatArray:
    """STOCHRSI(14, 14) fast %K from an RSI that is there already; NaN where the RSI stands still."""
    top, bottom = talib.MAX(rsi, 14), talib.MIN(rsi, 14)
    width = top - bottom
    return blank((rsi - bottom) / width * 100, width <= TINY * 100)


def _mean_of_3(x: FloatArray) -> FloatArray:
    """Mean of the last three rows; unlike a running sum it forgets a NaN after three rows."""
    mean = np.full(len(x), np.nan)
    mean[2:] = (x[2:] + x[1:-1] + x[:-2]) / 3
    return mean
