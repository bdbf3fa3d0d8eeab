"""Synthetic minute prices as a pure function of (seed, symbol, minute); coarser bars are made of the minutes.

The log price at each midnight is a random walk from 2000 on; within a day it is a Brownian bridge between its
two midnights. Each day draws from its own counter block of the Philox generator, so any day can be made
without the ones before it, and any sub-range equals the same part of a longer range.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
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
_ROWS_AT_ONCE = 256

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Bars of many symbols with the same opens; values of shape (symbols, bars)."""

    ts: Instants
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats


def grid(
    seed: int, symbols: Sequence[str], interval: Interval, start: np.datetime64, end: np.datetime64
) -> Grid:
    """The bars with `start <= ts < end` of all symbols: a few bars of 5 000 symbols take half a second.

    Most of that is the noise of whole days, of which each symbol has its own.
    """
    origin = np.datetime64(FIRST_DAY.date())
    first = max(0, int((start.astype("datetime64[D]") - origin).astype(int)))
    after = min(_DAYS, int((end.astype("datetime64[D]") - origin).astype(int)) + 1)
    days = np.arange(first, max(first, after))
    opens = _opens(origin, days, interval)
    lowest, highest = (int(place) for place in np.searchsorted(opens, [start, end]))
    per_day, step = 86_400 // interval.seconds, interval.seconds // 60
    parts = [np.empty((5, len(symbols), 0))]
    for chunk in _chunks(days):
        before = int(chunk[0] - first) * per_day
        bars = slice(max(lowest - before, 0), min(highest - before, len(chunk) * per_day))
        if bars.start >= bars.stop:
            continue
        if len(chunk) == 1:  # only the minutes that are wanted
            parts.append(_bars_of(seed, symbols, chunk, slice(bars.start * step, bars.stop * step), step))
        else:
            parts.append(_bars_of(seed, symbols, chunk, slice(0, _MINUTES), step)[:, :, bars])
    return Grid(opens[lowest:highest], *np.concatenate(parts, axis=2))


def _chunks(days: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for first in range(0, len(days), _DAYS_AT_ONCE):
        yield days[first : first + _DAYS_AT_ONCE]


def _opens(origin: np.datetime64, days: npt.NDArray[np.int64], interval: Interval) -> Instants:
    midnights = (origin + days).astype("datetime64[us]")
    within = np.arange(0, 86_400, interval.seconds).astype("timedelta64[s]")
    opens: Instants = (midnights[:, None] + within).ravel()
    return opens


def _bars_of(
    seed: int, symbols: Sequence[str], days: npt.NDArray[np.int64], minutes: slice, step: int
) -> Floats:
    """Open, high, low, close and volume of the bars of `step` minutes: (5, symbols, bars)."""
    rows = [(symbol, int(day)) for symbol in symbols for day in days]
    some = (rows[at : at + _ROWS_AT_ONCE] for at in range(0, len(rows), _ROWS_AT_ONCE))
    parts = [_minutes(seed, each, minutes) for each in some]
    values = np.concatenate(parts, axis=1).reshape(5, len(symbols), -1, step)
    open_, high, low, close, volume = values
    bars = [open_[..., 0], high.max(axis=2), low.min(axis=2), close[..., -1], volume.sum(axis=2)]
    return np.stack(bars)


def _minutes(seed: int, rows: Sequence[tuple[str, int]], minutes: slice) -> Floats:
    """Open, high, low, close and volume of `minutes` of each (symbol, day): (5, rows, minutes)."""
    noise = np.empty((len(rows), 4, _MINUTES))
    for own, (symbol, day) in zip(noise, rows, strict=True):
        _generator(seed, symbol, day + 1).standard_normal(out=own)
    ends = np.array([_midnights_around(seed, symbol, day) for symbol, day in rows])
    path = _bridge(ends, noise[:, 0] * _MINUTE_SIGMA)[:, minutes.start : minutes.stop + 1]
    noise = noise[:, 1:, minutes]
    open_, close = np.exp(path[:, :-1]), np.exp(path[:, 1:])
    upper, lower = np.exp(_WICK * _MINUTE_SIGMA * np.abs(noise[:, :2])).transpose(1, 0, 2)
    high, low = np.maximum(open_, close) * upper, np.minimum(open_, close) / lower
    volume = np.round(np.exp(4.0 + 0.5 * noise[:, 2]))
    return np.stack([*(np.round(price, _DECIMALS) for price in (open_, high, low, close)), volume])


def _bridge(ends: Floats, steps: Floats) -> Floats:
    """Log prices at the 1441 minute ends of each row, which start and end at the midnights `ends`."""
    walk = np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)
    start, end = ends[:, :1], ends[:, 1:]
    share = np.linspace(0.0, 1.0, _MINUTES + 1)
    path: Floats = start + walk + share * (end - start - walk[:, -1:])
    return path


def _midnights_around(seed: int, symbol: str, day: int) -> Floats:
    """Log price at the midnights before and after `day`."""
    block, place = divmod(day, _DAYS_AT_ONCE)
    return _midnights_of(seed, symbol, block)[place : place + 2]


@lru_cache(maxsize=16_384)  # half a kilobyte each: the present block of as many symbols stays
def _midnights_of(seed: int, symbol: str, block: int) -> Floats:
    """Log price at the midnights of a block of days, and at the one that ends it."""
    first = block * _DAYS_AT_ONCE
    return _midnights(seed, symbol)[first : first + _DAYS_AT_ONCE + 1].copy()


@lru_cache(maxsize=16)  # 0.3 MB each, made in a millisecond
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
