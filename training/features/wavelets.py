"""The 14 causal wavelet features: an undecimated (a trous) db4 transform of the log return, four levels.

Only causal FIR filters are used, so the coefficients lag (their energy centroids by 1.5 / 8 / 22 / 50 / 86
bars) and never see a later bar. They equal the interior of the stationary wavelet transform of a whole series
after a shift of 4 / 12 / 28 / 60 bars, which is exactly how far that transform looks ahead.
"""

from __future__ import annotations

import numpy as np
import pywt
from scipy.signal import lfilter

from training.features.degenerate import FloatArray, blank

LEVELS = 4
ENERGY_BARS = 64


def _filter_bank() -> tuple[tuple[FloatArray, FloatArray], ...]:
    """Return (low-pass, high-pass) taps of each level; level j has 2^(j-1) - 1 zeros between db4 taps."""
    wavelet = pywt.Wavelet("db4")
    low, high = (np.asarray(taps) / np.sqrt(2) for taps in (wavelet.dec_lo, wavelet.dec_hi))
    return tuple((_spread(low, 2**j), _spread(high, 2**j)) for j in range(LEVELS))


def _spread(taps: FloatArray, step: int) -> FloatArray:
    spread = np.zeros((len(taps) - 1) * step + 1)
    spread[::step] = taps
    return spread


FILTERS = _filter_bank()


def wavelet(returns: FloatArray) -> list[FloatArray]:
    """Return coefficients d1..d4 and a4, log energies, energy shares and their entropy, each of shape (T,).

    `returns` has shape (T,), 0 on the first bar. Rows inside the warm-up hold start-up values of the filters.
    """
    coefficients = transform(returns)
    *details, smooth = (_mean_energy(x) for x in coefficients)
    return [*coefficients, *(np.log(energy + 1e-12) for energy in details), *_shares(details, smooth)]


def transform(returns: FloatArray) -> list[FloatArray]:
    """Return the details d1..d4 and the remaining smooth a4, each of the shape of `returns`."""
    details, smooth = [], returns
    for low, high in FILTERS:
        details.append(lfilter(high, 1.0, smooth))
        smooth = lfilter(low, 1.0, smooth)
    return [*details, smooth]


def _mean_energy(x: FloatArray) -> FloatArray:
    """Mean square of the last 64 rows, summed in pairs of pairs: it keeps no memory of an older spike."""
    total, width = x * x, 1
    while width < ENERGY_BARS:
        total[width:] += total[:-width].copy()
        width *= 2
    return total / ENERGY_BARS


def _shares(details: list[FloatArray], smooth: FloatArray) -> list[FloatArray]:
    """Energy shares of d1..d4, and the entropy of all five shares in 0..1; NaN where nothing moves at all."""
    energies = [*details, smooth]
    total = sum(energies, np.full(len(smooth), 1e-18))
    still = total <= 2e-18
    shares = [energy / total for energy in energies]
    entropy = -sum((p * np.log(p + 1e-12) for p in shares), np.zeros(len(smooth))) / np.log(5)
    return [blank(x, still) for x in (*shares[:LEVELS], entropy)]
