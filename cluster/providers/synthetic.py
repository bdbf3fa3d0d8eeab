"""Bars made from a number, for load, demonstration and fault tests: same number, same bars, at any interval.

Holes, revisions, outages and latency are injected by the options and visible in them; the prices below them
are a pure function (`synthetic_prices`), so a test can always tell what the store should hold.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from cluster.providers.protocol import Capabilities, Many
from cluster.providers.synthetic_prices import Floats, Grid

NAME = "synthetic"


@dataclass(frozen=True, slots=True)
class Numbered:
    """The symbols with this prefix and a number of 4 to 8 digits."""

    prefix: str

    def __contains__(self, symbol: object) -> bool:
        return isinstance(symbol, str) and re.fullmatch(self.prefix + r"[0-9]{4,8}", symbol) is not None


SYMBOLS = Numbered("SYN")


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
    """Answers bars of `SYN0001`, `SYN0002`, ... on the calendar 24/7, from 2000-01-01 on.

    Only closed ones, unless `running_bar` asks for the one that still runs, too: with `is_final` false, it
    moves in a straight line from its open to where it will close.
    """

    name = NAME
    capabilities = Capabilities(
        intervals=frozenset(Interval),
        symbols=SYMBOLS,
        page_bars=1_000_000,
        earliest=synthetic_prices.FIRST_DAY,
        grace_s=0.0,
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
        running_bar: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._seed = seed
        self._symbols = symbols
        self._holes = holes
        self._revisions = revisions
        self._outages = outages
        self._latency_s = latency_s
        self._running_bar = running_bar
        self._clock = clock or SystemClock()
        self._calls = 0

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        """The first million bars of [start, end); `ProviderDown` during an outage."""
        answer = await self.many([symbol], interval, start, end)
        if symbol in answer.errors:
            raise answer.errors[symbol]
        return answer.table

    async def many(self, symbols: Sequence[str], interval: Interval, start: datetime, end: datetime) -> Many:
        """As `bars`, of all symbols in one call."""
        self._calls += 1
        now, call = self._clock.now(), self._calls
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        if any(outage.covers(now, call) for outage in self._outages):
            raise ProviderDown(f"provider {NAME} is in an injected outage (call {call}, {now.isoformat()})")
        known = [symbol for symbol in symbols if symbol in SYMBOLS]
        errors: dict[str, Exception] = {
            symbol: InvalidSymbol(f"provider {NAME} knows symbols such as SYN0001; asked for {symbol!r}")
            for symbol in set(symbols).difference(known)
        }
        if not known:
            return Many(bars.empty(), errors)
        table = await asyncio.to_thread(self._table, known, interval, start, end, now, call)
        return Many(table, errors)

    def instruments(self) -> list[Instrument]:
        """As many instruments as the option `symbols` says."""
        return [
            Instrument(
                f"SYN{number:04d}", "SYNTHETIC", "crypto", "24/7", name=f"Synthetic {number}", tier="T3"
            )
            for number in range(1, self._symbols + 1)
        ]

    def _table(
        self,
        symbols: Sequence[str],
        interval: Interval,
        start: datetime,
        end: datetime,
        now: datetime,
        call: int,
    ) -> pa.Table:
        step = np.timedelta64(interval.seconds, "s")
        first = to_instant(start)
        last_open = to_instant(now) if self._running_bar else to_instant(now) - step  # else it has closed
        after = min(
            to_instant(end),
            last_open + np.timedelta64(1, "us"),
            _ceil(first, step) + self.capabilities.page_bars * step,
        )
        grid = synthetic_prices.grid(self._seed, symbols, interval, first, after)
        grid = self._revised(symbols, grid, step, now, call)
        final = grid.ts + step <= to_instant(now)
        if not final.all():
            grid = _so_far(grid, step, now)
        return _bars(symbols, interval, grid, final, ~self._in_hole(symbols, grid))

    def _in_hole(self, symbols: Sequence[str], grid: Grid) -> npt.NDArray[np.bool_]:
        inside = np.zeros(grid.open.shape, dtype=bool)
        for hole in self._holes:
            if hole.symbol in symbols:
                covered = (grid.ts >= to_instant(hole.start)) & (grid.ts < to_instant(hole.end))
                inside[symbols.index(hole.symbol)] |= covered
        return inside

    def _revised(
        self, symbols: Sequence[str], grid: Grid, step: np.timedelta64, now: datetime, call: int
    ) -> Grid:
        close = grid.close.copy()
        for revision in self._revisions:
            seen = (revision.after is None or now >= revision.after) and call > revision.after_calls
            if seen and revision.symbol in symbols:
                ts = to_instant(revision.ts)
                holds = (grid.ts <= ts) & (ts < grid.ts + step)
                close[symbols.index(revision.symbol), holds] *= revision.factor
        high, low = np.maximum(grid.high, close), np.minimum(grid.low, close)
        return replace(grid, high=high, low=low, close=close)


def _so_far(grid: Grid, step: np.timedelta64, now: datetime) -> Grid:
    """The bars as they are seen at `now`: one that runs has come a part of its way."""
    elapsed = (to_instant(now) - grid.ts).astype("timedelta64[s]") / step
    share = np.clip(elapsed, 0.0, 1.0)

    def part(values: Floats) -> Floats:
        seen: Floats = np.where(share < 1.0, np.round(grid.open + share * (values - grid.open), 4), values)
        return seen

    volume = np.where(share < 1.0, np.round(share * grid.volume), grid.volume)
    return replace(grid, high=part(grid.high), low=part(grid.low), close=part(grid.close), volume=volume)


def _bars(
    symbols: Sequence[str],
    interval: Interval,
    grid: Grid,
    final: npt.NDArray[np.bool_],
    there: npt.NDArray[np.bool_],
) -> pa.Table:
    """`BAR_SCHEMA`, symbol after symbol, of the bars that are `there` (symbols, bars)."""
    row, place = np.nonzero(there)
    prices = (values[row, place] for values in (grid.open, grid.high, grid.low, grid.close, grid.volume))
    table = bars.from_columns(
        symbols[0], interval, grid.ts[place], *prices, source=NAME, is_final=final[place]
    )
    names = pa.array(symbols, pa.string()).take(pa.array(row))
    return table.set_column(0, table.schema.field(0), names)


def _ceil(instant: np.datetime64, step: np.timedelta64) -> np.datetime64:
    """The first point of the UTC grid at or after `instant`."""
    step_us = step.astype("timedelta64[us]").astype(int)
    return np.datetime64(int(-(-int(instant.astype(int)) // step_us) * step_us), "us")
