"""Synthetic minute prices as a pure function of (seed, symbol, minute); coarser bars are made of the minutes.

The log price at each midnight is a random walk from 2000 on; within a day it is a Brownian bridge between its
two midnights. Each day draws from its own counter block of the Philox generator, so any day can be made
without the ones before it, and any sub-range equals the same part of a longer range.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from cluster.market.instants import Instants
from cluster.market.intervals import Interval

FIRST_DAY = datetime(2000, 1, 1, tzinfo=UTC)
AFTER_LAST_DAY = datetime(2100, 1, 1, tzinfo=UTC)

_DAYS = (AFTER_LAST_DAY - FIRST_DAY).days
_MINUTES = 1_440
_DAILY_SIGMA = 0.01
_MINUTE_SIGMA = _DAILY_SIGMA / np.sqrt(_MINUTES)
_WICK = 0.5  # mean size of a wick, in standard deviations of a minute
_DECIMALS = 4
_DAYS_AT_ONCE = 64

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Columns:
    """Bars as arrays of equal length."""

    ts: Instants
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def where(self, chosen: slice | npt.NDArray[np.bool_]) -> Columns:
        """The chosen bars."""
        values = (self.open, self.high, self.low, self.close, self.volume)
        return Columns(self.ts[chosen], *(column[chosen] for column in values))


def columns(seed: int, symbol: str, interval: Interval, start: np.datetime64, end: np.datetime64) -> Columns:
    """The bars with `start <= ts < end` on the UTC grid, between the years 2000 and 2100."""
    origin = np.datetime64(FIRST_DAY.date())
    first = max(0, int((start.astype("datetime64[D]") - origin).astype(int)))
    after = min(_DAYS, int((end.astype("datetime64[D]") - origin).astype(int)) + 1)
    days = np.arange(first, max(first, after))
    parts = [_bars_of(seed, symbol, interval, chunk) for chunk in _chunks(days)]
    open_, high, low, close, volume = np.concatenate([np.empty((5, 0)), *parts], axis=1)
    whole = Columns(_opens(origin, days, interval), open_, high, low, close, volume)
    lowest, highest = np.searchsorted(whole.ts, [start, end])
    return whole.where(slice(int(lowest), int(highest)))


def _chunks(days: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for first in range(0, len(days), _DAYS_AT_ONCE):
        yield days[first : first + _DAYS_AT_ONCE]


def _opens(origin: np.datetime64, days: npt.NDArray[np.int64], interval: Interval) -> Instants:
    midnights = (origin + days).astype("datetime64[us]")
    within = np.arange(0, 86_400, interval.seconds).astype("timedelta64[s]")
    opens: Instants = (midnights[:, None] + within).ravel()
    return opens


def _bars_of(seed: int, symbol: str, interval: Interval, days: npt.NDArray[np.int64]) -> Floats:
    """Open, high, low, close and volume of all bars of `days`: (5, bars)."""
    open_, high, low, close, volume = (
        values.reshape(-1, interval.seconds // 60) for values in _minutes(seed, symbol, days)
    )
    return np.stack([open_[:, 0], high.max(axis=1), low.min(axis=1), close[:, -1], volume.sum(axis=1)])


def _minutes(seed: int, symbol: str, days: npt.NDArray[np.int64]) -> list[Floats]:
    """Open, high, low, close and volume of each minute, each of shape (days, 1440)."""
    noise = np.stack([_generator(seed, symbol, int(day) + 1).standard_normal((4, _MINUTES)) for day in days])
    path = _bridge(_midnights(seed, symbol), days, noise[:, 0] * _MINUTE_SIGMA)
    open_, close = np.exp(path[:, :-1]), np.exp(path[:, 1:])
    upper, lower = np.exp(_WICK * _MINUTE_SIGMA * np.abs(noise[:, 1:3])).transpose(1, 0, 2)
    high, low = np.maximum(open_, close) * upper, np.minimum(open_, close) / lower
    volume = np.round(np.exp(4.0 + 0.5 * noise[:, 3]))
    return [*(np.round(price, _DECIMALS) for price in (open_, high, low, close)), volume]


def _bridge(midnights: Floats, days: npt.NDArray[np.int64], steps: Floats) -> Floats:
    """Log prices at the 1441 minute ends of each day, which start and end at the midnights: (days, 1441)."""
    walk = np.concatenate([np.zeros((len(days), 1)), np.cumsum(steps, axis=1)], axis=1)
    start, end = midnights[days, None], midnights[days + 1, None]
    share = np.linspace(0.0, 1.0, _MINUTES + 1)
    path: Floats = start + walk + share * (end - start - walk[:, -1:])
    return path


@lru_cache(maxsize=128)  # 0.3 MB each, made in a millisecond
def _midnights(seed: int, symbol: str) -> Floats:
    """Log price at each midnight from 2000 to 2100, from a price between 10 and 500 on."""
    generator = _generator(seed, symbol, 0)
    first = generator.uniform(np.log(10.0), np.log(500.0))
    steps = generator.standard_normal(_DAYS) * _DAILY_SIGMA
    path: Floats = np.concatenate([[first], first + np.cumsum(steps)])
    return path


def _generator(seed: int, symbol: str, block: int) -> np.random.Generator:
    key = int.from_bytes(hashlib.blake2b(f"{seed}:{symbol}".encode(), digest_size=16).digest())
    return np.random.Generator(np.random.Philox(key=key, counter=block << 64))
