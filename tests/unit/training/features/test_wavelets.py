"""The causal filters against the whole-series transform, whose look-ahead they do without."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
from numpy.typing import NDArray
from scipy.signal import lfilter

from tests.unit.training.features.walks import bars
from training.features import NAMES, compute
from training.features.wavelets import HIGH, LOW, transform

RETURNS = np.concatenate(([0.0], np.random.default_rng(40).normal(0, 0.01, 1599)))  # 1600 = 100 * 2^4
LOOK_AHEAD = (4, 12, 28, 60)
EQUIVALENT_LENGTH = (8, 22, 50, 106)


def feature(name: str) -> NDArray[np.float64]:
    values = compute(bars(100 * np.exp(np.cumsum(RETURNS)))).values
    return values[:, NAMES.index(name)].astype(np.float64)


def test_the_filters_keep_the_mean_and_half_of_the_energy() -> None:
    assert LOW.sum() == pytest.approx(1)
    assert HIGH.sum() == pytest.approx(0, abs=1e-12)
    assert (LOW**2).sum() == pytest.approx(0.5)
    assert (HIGH**2).sum() == pytest.approx(0.5)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_detail_is_the_whole_series_transform_as_many_bars_later_as_that_looks_ahead(level: int) -> None:
    whole = pywt.swt(RETURNS, "db4", level=4, norm=True)[4 - level][1]
    causal = list(transform(RETURNS))[level - 1]
    shift = LOOK_AHEAD[level - 1]
    inside = slice(EQUIVALENT_LENGTH[level - 1], len(RETURNS) - shift)
    np.testing.assert_allclose(causal[inside], np.roll(whole, shift)[inside], atol=1e-15)


def test_the_transform_is_the_chain_of_filters_with_zeros_between_the_taps() -> None:
    smooth = RETURNS
    expected = []
    for level in range(4):
        low, high = np.zeros(7 * 2**level + 1), np.zeros(7 * 2**level + 1)
        low[:: 2**level], high[:: 2**level] = LOW, HIGH
        expected.append(lfilter(high, 1.0, smooth))
        smooth = lfilter(low, 1.0, smooth)
    for got, wanted in zip(transform(RETURNS), [*expected, smooth], strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-16)


def test_details_and_smooth_share_the_energy_of_the_returns() -> None:
    """Orthogonal filters split the variance: 1/2, 1/4, 1/8, 1/16 and 1/16 of white noise."""
    noise = np.random.default_rng(41).normal(0, 1, 200_000)
    energies = [float(np.mean(x[200:] ** 2)) for x in transform(noise)]
    assert energies == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16], rel=0.05)
    assert sum(energies) == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(("level", "row"), [(1, 300), (2, 500), (3, 900), (4, 1500)])
def test_log_energy_is_of_the_mean_square_over_64_bars(level: int, row: int) -> None:
    detail = feature(f"w_d{level}")[row - 63 : row + 1]
    assert feature(f"w_e{level}")[row] == pytest.approx(np.log(np.mean(detail**2) + 1e-12), abs=1e-5)


def test_shares_are_of_the_five_energies_and_the_entropy_is_theirs() -> None:
    energies = [np.mean(feature(name)[937:1001] ** 2) for name in ("w_d1", "w_d2", "w_d3", "w_d4", "w_a4")]
    shares = np.array(energies) / sum(energies)
    got = [feature(f"w_re{level}")[1000] for level in (1, 2, 3, 4)]
    np.testing.assert_allclose(got, shares[:4], rtol=1e-5)
    assert feature("w_ent")[1000] == pytest.approx(-np.sum(shares * np.log(shares)) / np.log(5), abs=1e-5)
    assert 0 <= feature("w_ent")[1000] <= 1


def test_one_return_is_seen_only_afterwards_and_for_the_length_of_the_filter() -> None:
    impulse = np.zeros(400)
    impulse[200] = 1.0
    for length, x in zip((*EQUIVALENT_LENGTH, 106), transform(impulse), strict=True):
        touched = np.flatnonzero(x)
        assert touched[0] >= 200
        assert touched[-1] == 200 + length - 1
