"""The 36 indicators, scale-free, one pure function a family; TA-Lib in float64 on valid bars only.

Each function takes the arrays of one symbol, oldest first, and yields its features in the order of
`training.features.definition`. The value at row t depends on rows up to t only. Rows before the warm-up may
hold numbers; `training.features.compute` blanks them.

TA-Lib treats anything below 1e-14 as zero and money flows below 1 as none, which breaks prices like 1e-8.
`Bars.scaled` therefore multiplies by a power of two, which is exact in floating point and cancels in every
feature.
"""

from __future__ import annotations

from collections.abc import Iterator
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


def trend(bars: Bars) -> Iterator[FloatArray]:
    """Yield distances from moving averages, MACD, directional movement, Aroon and the regression slope."""
    h, l, c = bars.high, bars.low, bars.close  # noqa: E741
    for rows in (10, 20, 50):
        yield c / talib.SMA(c, rows) - 1
    for rows in (12, 26):
        yield c / talib.EMA(c, rows) - 1
    for line in talib.MACD(c, 12, 26, 9):
        yield line / c
    still = without_move(changed(h) | changed(l) | changed(c), 14)
    yield blank(talib.ADX(h, l, c, 14), still)
    yield blank(talib.PLUS_DI(h, l, c, 14) - talib.MINUS_DI(h, l, c, 14), still)
    yield talib.AROONOSC(h, l, 25)
    yield talib.LINEARREG_SLOPE(c, 14) / c


def momentum(bars: Bars) -> Iterator[FloatArray]:
    """Yield RSI, stochastics, Williams %R, CCI, rates of change, ultimate oscillator, balance of power."""
    o, h, l, c = bars.open, bars.high, bars.low, bars.close  # noqa: E741
    moved = changed(c)
    still = without_move(moved, 14)
    rsi = talib.RSI(c, 14)
    yield blank(talib.RSI(c, 7), without_move(moved, 7))
    yield np.where(still, np.nan, rsi)
    yield blank(talib.RSI(c, 28), without_move(moved, 28))
    yield from _stochastic(h, l, c)
    yield blank(talib.CCI(h, l, c, 20), without_move(changed(h + l + c), 19))
    for rows in (1, 5, 21):
        yield talib.ROC(c, rows)
    yield blank(talib.ULTOSC(h, l, c, 7, 14, 28), without_move(talib.TRANGE(h, l, c) > TINY * c, 7))
    yield blank(_stochastic_rsi(rsi), still)
    yield blank(talib.BOP(o, h, l, c), h - l <= TINY * c)


def volatility(bars: Bars) -> Iterator[FloatArray]:
    """Yield average and single true range, Bollinger bands, standard deviations of the log return per bar."""
    h, l, c = bars.high, bars.low, bars.close  # noqa: E741
    yield talib.NATR(h, l, c, 14)
    upper, middle, lower = talib.BBANDS(c, 20, 2, 2)
    width = upper - lower
    yield blank((c - lower) / width, without_move(changed(c), 19) | (width <= TINY * c))
    yield width / middle
    yield talib.TRANGE(h, l, c) / c
    returns = log_returns(c)
    for rows in (20, 60):
        deviation = returns.copy()
        deviation[1:] = talib.STDDEV(returns[1:], rows, 1)  # the first bar has no return
        yield deviation


def volume(bars: Bars) -> Iterator[FloatArray]:
    """Yield money flow, on-balance volume, accumulation/distribution, volume against its mean.

    NaN where fewer than half of the bars in the window traded, or the volume of one of them is unknown.
    """
    h, l, c, v = bars.high, bars.low, bars.close, bars.volume  # noqa: E741
    traded = v > 0
    idle_14, idle_20, idle_50 = (hardly_traded(traded, bars.known, rows) for rows in (14, 20, 50))
    no_flow = without_move(changed(h + l + c) & traded, 14)
    yield blank(talib.MFI(h, l, c, v, 14), idle_14 | no_flow)
    mean = talib.SMA(v, 20)
    yield blank(_change(talib.OBV(c, v), 20) / (20 * mean), idle_20)
    yield blank(talib.ADOSC(h, l, c, v, 3, 10) / mean, idle_20)
    yield blank(v / mean, idle_20)
    mean, deviation = talib.SMA(v, 50), talib.STDDEV(v, 50, 1)
    steady = without_move(changed(v), 49) | (deviation <= TINY * mean)
    yield blank((v - mean) / deviation, idle_50 | steady)


def _change(x: FloatArray, rows: int) -> FloatArray:
    change = np.full(len(x), np.nan)
    np.subtract(x[rows:], x[:-rows], out=change[rows:])
    return change


def _stochastic(high: FloatArray, low: FloatArray, close: FloatArray) -> Iterator[FloatArray]:
    """Yield STOCH(14, 3, 3) %K and %D and WILLR(14): three views of one range, which is computed once."""
    top, bottom = talib.MAX(high, 14), talib.MIN(low, 14)
    width = top - bottom
    blank(width, width <= TINY * close)
    slow_k = _mean_of_3((close - bottom) / width * 100)
    yield slow_k
    yield _mean_of_3(slow_k)
    yield (close - top) / width * 100


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
