"""Several symbols' features and targets as one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.errors import NotEnoughHistory
from training.datasets import targets
from training.datasets.splits import Spans

Rows = NDArray[np.int64]
Times = NDArray[np.datetime64]


@dataclass(frozen=True)
class SymbolRows:
    """One symbol, oldest bar first: opens `ts` (T,), `close` (T,), features `values` (T, F), NaN unknown."""

    symbol: str
    ts: Times
    close: NDArray[np.float64]
    values: NDArray[np.float32]
    warmup: int


@dataclass(frozen=True)
class Dataset:
    """Rows of several symbols one after another; every array has one entry a row (R,).

    `values` (R, F) are raw features. `target` is the log return of the next `horizon` bars (NaN = not known),
    `returns` the one of the bar itself. `first` is the first row of the row's symbol. `usable` rows are warm
    and have a target and at least one feature.
    """

    names: tuple[str, ...]
    digest: str
    interval: str
    horizon: int
    symbols: tuple[str, ...]
    symbol: Rows
    ts: Times
    first: Rows
    values: NDArray[np.float32]
    returns: NDArray[np.float64]
    target: NDArray[np.float64]
    usable: NDArray[np.bool_]
    spans: Spans

    @property
    def rows(self) -> Rows:
        """Numbers of the usable rows."""
        return np.flatnonzero(self.usable)


def from_bars(bars: Mapping[str, pa.Table], interval: str, horizon: int = 1) -> Dataset:
    """Dataset of bar tables (`cluster.market.bars.BAR_SCHEMA`, one symbol each), features computed here."""
    from training import features  # brings in TA-Lib and PyWavelets, which stored features do not need

    parts = []
    for symbol, table in bars.items():
        computed = features.compute(table)
        ts = table["ts"].to_numpy().astype("datetime64[us]")
        close = table["close"].to_numpy().astype(np.float64)
        parts.append(SymbolRows(symbol, ts, close, computed.values, computed.warmup))
    return assemble(parts, features.NAMES, features.DIGEST, interval, horizon)


def assemble(
    parts: Sequence[SymbolRows], names: tuple[str, ...], digest: str, interval: str, horizon: int = 1
) -> Dataset:
    """Put the symbols one after another. NotEnoughHistory when no row is usable."""
    sizes = np.array([len(part.ts) for part in parts], dtype=np.int64)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    values = np.concatenate([part.values for part in parts]).astype(np.float32)
    target = np.concatenate([targets.future_return(part.close, horizon) for part in parts])
    warm = np.concatenate([np.arange(len(part.ts)) >= part.warmup for part in parts])
    usable = warm & np.isfinite(target) & np.isfinite(values).any(axis=1)
    if not usable.any():
        raise NotEnoughHistory(
            f"no usable row in {sizes.sum()} bars of {[p.symbol for p in parts]}; add bars"
        )
    return Dataset(
        names=tuple(names),
        digest=digest,
        interval=interval,
        horizon=horizon,
        symbols=tuple(part.symbol for part in parts),
        symbol=np.repeat(np.arange(len(parts)), sizes),
        ts=np.concatenate([part.ts for part in parts]),
        first=first,
        values=values,
        returns=np.concatenate([targets.past_return(part.close) for part in parts]),
        target=target,
        usable=usable,
        spans=_spans(parts, horizon),
    )


def _spans(parts: Sequence[SymbolRows], horizon: int) -> Spans:
    """Positions on the common time line; a label that lies beyond a symbol's last bar ends with that bar."""
    line = np.unique(np.concatenate([part.ts for part in parts]))
    starts = [np.searchsorted(line, part.ts) for part in parts]
    ends = [start[np.minimum(np.arange(len(start)) + horizon, len(start) - 1)] for start in starts]
    return Spans(start=np.concatenate(starts), end=np.concatenate(ends))
