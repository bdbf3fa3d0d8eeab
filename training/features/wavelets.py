"""The 14 causal wavelet features: an undecimated (a trous) db4 transform of the log return, four levels.

Only causal FIR filters are used, so the coefficients lag (their energy centroids by 1.5 / 8 / 22 / 50 / 86
bars) and never see a later bar. They equal the interior of the stationary wavelet transform of a whole series
after a shift of 4 / 12 / 28 / 60 bars, which is exactly how far that transform looks ahead.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pywt
from scipy.signal import lfilter

from training.features.degenerate import FloatArray

LEVELS = 4
ENERGY_BARS = 64


_DB4 = pywt.Wavelet("db4")
LOW, HIGH = (np.asarray(taps) / np.sqrt(2) for taps in (_DB4.dec_lo, _DB4.dec_hi))
"""The eight taps of each filter; undecimated, so divided by sqrt(2): LOW sums to 1, HIGH to 0."""


def wavelet(returns: FloatArray) -> Iterator[FloatArray]:
    """Yield coefficients d1..d4 and a4, log energies, energy shares and their entropy, each of shape (T,).

    `returns` has shape (T,), 0 on the first bar. Rows inside the warm-up hold start-up values of the filters.
    """
    energies = []
    for coefficient in transform(returns):
        yield coefficient
        energies.append(_mean_energy(coefficient))
    for energy in energies[:LEVELS]:
        yield np.log(energy + 1e-12)
    yield from _shares(energies)


def transform(returns: FloatArray) -> Iterator[FloatArray]:
    """Yield the details d1..d4 and the remaining smooth a4, each of the shape of `returns`."""
    smooth = returns
    for level in range(LEVELS):
        yield _spread_filter(HIGH, 2**level, smooth)
        smooth = _spread_filter(LOW, 2**level, smooth)
    yield smooth


def _spread_filter(taps: FloatArray, step: int, x: FloatArray) -> FloatArray:
    """Filter with `step` - 1 zeros between the taps, by filtering each of the `step` interleaved series."""
    filtered = np.empty_like(x)
    for phase in range(min(step, len(x))):
        filtered[phase::step] = lfilter(taps, 1.0, x[phase::step])
    return filtered


def _mean_energy(x: FloatArray) -> FloatArray:
    """Mean square of the last 64 rows, summed in pairs of pairs: it keeps no memory of an older spike."""
    total, width = x * x, 1
    wider = np.empty_like(total)
    while width < ENERGY_BARS:
        wider[:width] = total[:width]
        np.add(total[width:], total[:-width], out=wider[width:])
        total, wider, width = wider, total, 2 * width
    return total / ENERGY_BARS


def _shares(energies: list[FloatArray]) -> Iterator[FloatArray]:
    """Yield the energy shares of d1..d4, then the entropy of all five in 0..1; NaN where nothing moves."""
    total = np.sum(energies, axis=0) + 1e-18
    total[total <= 2e-18] = np.nan
    entropy = np.zeros(len(total))
    for level, energy in enumerate(energies):
        share = energy / total
        entropy -= share * np.log(share + 1e-12)
        if level < LEVELS:
            yield share
    yield entropy / np.log(5)
