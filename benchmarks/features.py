"""All 50 features of 100 000 bars against the bare library calls that define them.

`python -m benchmarks.features` prints one JSON line. The peer is the definition written down plainly: every
TA-Lib call of the 36 indicators and the eight `lfilter` calls of the wavelet transform (zeros between the
taps), on float64 arrays that are ready, their results thrown away. It leaves out what the features need on
top: ratios, energies, logarithms, masks, the float32 matrix. Neither side starts a thread.

Our own filters run on interleaved series without the zeros, which is faster; the note also gives the ratio
against a peer that does the same.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import talib
from numpy.typing import NDArray
from scipy.signal import lfilter

from benchmarks.report import report
from training.features import NAMES, compute
from training.features.wavelets import HIGH, LEVELS, LOW, transform

BARS = 100_000
ROUNDS = 25
GOAL_RATIO = 1.5
GOAL_S = 0.2
Array = NDArray[np.float64]


def walk() -> pa.Table:
    """Minute bars of a random walk with eight steps a bar."""
    random = np.random.default_rng(0)
    path = 100 * np.exp(np.cumsum(random.normal(0, 0.0005, BARS * 8))).reshape(BARS, 8)
    open_ = np.concatenate(([100.0], path[:-1, -1]))
    return pa.table(
        {
            "ts": np.arange(BARS).astype("datetime64[m]").astype("datetime64[us]"),
            "open": open_,
            "high": np.maximum(path.max(axis=1), open_),
            "low": np.minimum(path.min(axis=1), open_),
            "close": path[:, -1].copy(),
            "volume": random.lognormal(8, 1, BARS),
        }
    )


def price_calls(open_: Array, high: Array, low: Array, close: Array, returns: Array) -> None:
    """Make the TA-Lib calls of the 31 indicators of price."""
    for bars in (10, 20, 50):
        talib.SMA(close, bars)
    for bars in (12, 26):
        talib.EMA(close, bars)
    talib.MACD(close, 12, 26, 9)
    for directional in (talib.ADX, talib.PLUS_DI, talib.MINUS_DI, talib.WILLR, talib.NATR):
        directional(high, low, close, 14)
    talib.AROON(high, low, 25)
    talib.LINEARREG_SLOPE(close, 14)
    for bars in (7, 14, 28):
        talib.RSI(close, bars)
    talib.STOCH(high, low, close, fastk_period=14, slowk_period=3, slowd_period=3)
    talib.STOCHRSI(close, timeperiod=14, fastk_period=14, fastd_period=3)
    talib.CCI(high, low, close, 20)
    for bars in (1, 5, 21):
        talib.ROC(close, bars)
    talib.ULTOSC(high, low, close, 7, 14, 28)
    talib.BOP(open_, high, low, close)
    talib.BBANDS(close, 20, 2, 2)
    talib.TRANGE(high, low, close)
    for bars in (20, 60):
        talib.STDDEV(returns, bars, 1)


def volume_calls(high: Array, low: Array, close: Array, volume: Array) -> None:
    """Make the TA-Lib calls of the five indicators of volume."""
    talib.MFI(high, low, close, volume, 14)
    talib.OBV(close, volume)
    talib.SUM(volume, 20)
    talib.ADOSC(high, low, close, volume, 3, 10)
    talib.SMA(volume, 20)
    talib.SMA(volume, 50)
    talib.STDDEV(volume, 50, 1)


def filter_calls(returns: Array) -> None:
    """Make the eight `lfilter` calls of the wavelet transform."""
    smooth = returns
    for level in range(LEVELS):
        low, high = np.zeros(7 * 2**level + 1), np.zeros(7 * 2**level + 1)
        low[:: 2**level], high[:: 2**level] = LOW, HIGH
        lfilter(high, 1.0, smooth)
        smooth = lfilter(low, 1.0, smooth)


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print one JSON line: ours, theirs and their ratio, medians of alternating rounds."""
    table = walk()
    open_, high, low, close, volume = (table[name].to_numpy() for name in table.column_names[1:])
    returns = np.diff(np.log(close))

    def indicators() -> None:
        price_calls(open_, high, low, close, returns)
        volume_calls(high, low, close, volume)

    timed: dict[str, Callable[[], object]] = {
        "ours": lambda: compute(table),
        "indicators": indicators,
        "filters": lambda: filter_calls(returns),
        "own filters": lambda: list(transform(returns)),
    }
    rounds = [[seconds(call) for call in timed.values()] for _ in range(ROUNDS + 2)][2:]
    took = dict(zip(timed, map(statistics.median, zip(*rounds, strict=True)), strict=True))
    tell(took)


def tell(took: dict[str, float]) -> None:
    """Print the line of the medians, in seconds."""
    ours, theirs = took["ours"], took["indicators"] + took["filters"]
    same_filters = ours / (took["indicators"] + took["own filters"])
    note = (
        f"{len(NAMES)} features of {BARS} bars from an Arrow table, one thread, medians of {ROUNDS} "
        "alternating rounds; theirs = the bare TA-Lib and lfilter calls of the definition, results dropped; "
        f"ratio {same_filters:.2f} if the peer's filters are the interleaved ones of ours; "
        f"{ours:.3f} s is {'under' if ours < GOAL_S else 'OVER'} the bound of {GOAL_S} s"
    )
    report("features", ours, theirs, "s", digits=5, better="lower", goal=GOAL_RATIO, note=note)


if __name__ == "__main__":
    main()
