"""Bars made from a number, for load, demonstration and fault tests: same number, same bars, at any interval.

Holes, revisions, outages and latency are injected by the options and visible in them; the prices below them
are a pure function (`synthetic_prices`), so a test can always tell what the store should hold.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.clock import Clock, SystemClock
from cluster.errors import InvalidSymbol, ProviderDown
from cluster.market import bars
from cluster.market.instants import to_instant
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers import synthetic_prices
from cluster.providers.protocol import Capabilities
from cluster.providers.synthetic_prices import Columns

NAME = "synthetic"
_SYMBOL = re.compile(r"SYN[0-9]{4,8}")


@dataclass(frozen=True, slots=True)
class Hole:
    """Bars of `symbol` with `start <= ts < end` do not exist, whatever their interval."""

    symbol: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Revision:
    """The bar of each interval that holds `ts` closes at `factor` times its first close.

    It is seen from the moment `after` on, and by calls that follow the first `after_calls`; both must hold.
    """

    symbol: str
    ts: datetime
    factor: float
    after: datetime | None = None
    after_calls: int = 0


@dataclass(frozen=True, slots=True)
class Outage:
    """Down for moments in [start, end), or for the calls first_call..last_call, counted from 1."""

    start: datetime | None = None
    end: datetime | None = None
    first_call: int | None = None
    last_call: int | None = None

    def covers(self, now: datetime, call: int) -> bool:
        """Whether this outage strikes call number `call` at `now`."""
        in_time = self.start is not None and self.start <= now and (self.end is None or now < self.end)
        in_calls = self.first_call is not None and self.first_call <= call
        return in_time or (in_calls and (self.last_call is None or call <= self.last_call))


class SyntheticProvider:
    """Answers closed bars of `SYN0001`, `SYN0002`, ... on the calendar 24/7, from 2000-01-01 on."""

    name = NAME
    capabilities = Capabilities(
        intervals=frozenset(Interval),
        symbols=None,
        page_bars=1_000_000,
        earliest=synthetic_prices.FIRST_DAY,
    )

    def __init__(
        self,
        *,
        seed: int = 0,
        symbols: int = 10,
        holes: tuple[Hole, ...] = (),
        revisions: tuple[Revision, ...] = (),
        outages: tuple[Outage, ...] = (),
        latency_s: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        self._seed = seed
        self._symbols = symbols
        self._holes = holes
        self._revisions = revisions
        self._outages = outages
        self._latency_s = latency_s
        self._clock = clock or SystemClock()
        self._calls = 0

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """The first million closed bars of [start, end); `ProviderDown` during an outage."""
        self._calls += 1
        now, call = self._clock.now(), self._calls
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        if any(outage.covers(now, call) for outage in self._outages):
            raise ProviderDown(f"provider {NAME} is in an injected outage (call {call}, {now.isoformat()})")
        if not _SYMBOL.fullmatch(symbol):
            raise InvalidSymbol(f"provider {NAME} knows symbols such as SYN0001; asked for {symbol!r}")
        return await asyncio.to_thread(self._table, symbol, interval, start, end, now, call)

    def instruments(self) -> list[Instrument]:
        """As many instruments as the option `symbols` says."""
        return [
            Instrument(
                f"SYN{number:04d}", "SYNTHETIC", "crypto", "24/7", name=f"Synthetic {number}", tier="T3"
            )
            for number in range(1, self._symbols + 1)
        ]

    def _table(
        self, symbol: str, interval: Interval, start: datetime, end: datetime, now: datetime, call: int
    ) -> pa.Table:
        step = np.timedelta64(interval.seconds, "s")
        first = to_instant(start)
        after = min(
            to_instant(end),
            to_instant(now) - step + np.timedelta64(1, "us"),  # the bar has closed
            _ceil(first, step) + self.capabilities.page_bars * step,
        )
        columns = synthetic_prices.columns(self._seed, symbol, interval, first, after)
        columns = self._revised(symbol, columns, step, now, call)
        columns = columns.where(~self._in_hole(symbol, columns))
        return bars.from_columns(
            symbol,
            interval,
            columns.ts,
            columns.open,
            columns.high,
            columns.low,
            columns.close,
            columns.volume,
            source=NAME,
        )

    def _in_hole(self, symbol: str, columns: Columns) -> npt.NDArray[np.bool_]:
        inside = np.zeros(len(columns.ts), dtype=bool)
        for hole in self._holes:
            if hole.symbol == symbol:
                inside |= (columns.ts >= to_instant(hole.start)) & (columns.ts < to_instant(hole.end))
        return inside

    def _revised(
        self, symbol: str, columns: Columns, step: np.timedelta64, now: datetime, call: int
    ) -> Columns:
        close = columns.close.copy()
        for revision in self._revisions:
            seen = (revision.after is None or now >= revision.after) and call > revision.after_calls
            if seen and revision.symbol == symbol:
                ts = to_instant(revision.ts)
                close[(columns.ts <= ts) & (ts < columns.ts + step)] *= revision.factor
        high, low = np.maximum(columns.high, close), np.minimum(columns.low, close)
        return Columns(columns.ts, columns.open, high, low, close, columns.volume)


def _ceil(instant: np.datetime64, step: np.timedelta64) -> np.datetime64:
    """The first point of the UTC grid at or after `instant`."""
    step_us = step.astype("timedelta64[us]").astype(int)
    return np.datetime64(int(-(-int(instant.astype(int)) // step_us) * step_us), "us")
