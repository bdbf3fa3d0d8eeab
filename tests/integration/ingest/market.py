"""Providers, symbols and looks of the tests of the collector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from cluster.clock import Clock
from cluster.errors import ProviderDown
from cluster.ingest.cadence import Cadence
from cluster.ingest.sweep import Sweeper
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument, Tier
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.providers.protocol import BarProvider, Capabilities, Many
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage import bars as stored_bars
from cluster.storage import universe
from cluster.storage.database import Database
from cluster.storage.sweeps import Sweep

M1 = Interval.M1
NOON = datetime(2025, 10, 8, 12, tzinfo=UTC)
MINUTES = Cadence("T1", M1, 60.0)
"""Closed minutes, once a minute."""
LIVE = Cadence("T0", M1, 30.0)
"""Also the minute that runs."""


def at(minute: int, second: float = 0.0) -> datetime:
    return NOON + timedelta(minutes=minute, seconds=second)


class Named:
    """Bars of the synthetic provider under another name: a symbol a call, and each at a price of its own."""

    def __init__(
        self, name: str, clock: Clock, *, grace_s: float = 0.0, factor: float = 1.0, running_bar: bool = False
    ) -> None:
        self.name, self._clock, self._grace_s, self._factor = name, clock, grace_s, factor
        self.capabilities: Capabilities = replace(
            SyntheticProvider.capabilities, symbols=None, grace_s=grace_s
        )
        self._bars = SyntheticProvider(clock=clock, running_bar=running_bar)
        self.down: set[str] = set()
        self.asked: list[tuple[str, datetime, datetime]] = []

    def instruments(self) -> list[Instrument]:
        return []

    async def bars(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        self.asked.append((symbol, start, end))
        if self.down & {symbol, "*"}:
            raise ProviderDown(f"{self.name} is down for {symbol}")
        table = await self._bars.bars(symbol, interval, start, end)
        return self._named(table, interval)

    def _named(self, table: pa.Table, interval: Interval) -> pa.Table:
        """Until the grace has passed its values are not the last ones, though it calls them final."""
        age = np.datetime64(self._clock.now().replace(tzinfo=None), "us") - bars.opens(table)
        early = age < np.timedelta64(interval.seconds, "s") + np.timedelta64(round(self._grace_s * 1e6), "us")
        price = np.where(early, self._factor * 1.01, self._factor)
        columns = (table[name].to_numpy() * price for name in bars.PRICES)
        for name, values in zip(bars.PRICES, list(columns), strict=True):
            table = changed(table, name, pa.array(values))
        return changed(table, "source", pa.repeat(pa.scalar(self.name), table.num_rows))


class Together(Named):
    """Answers many symbols in one call."""

    async def many(self, symbols: Sequence[str], interval: Interval, start: datetime, end: datetime) -> Many:
        tables, errors = [], {}
        for symbol in symbols:
            try:
                tables.append(await self.bars(symbol, interval, start, end))
            except ProviderDown as error:
                errors[symbol] = error
        return Many(bars.concat(tables), errors)


def changed(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), values)


async def watch(database: Database, *symbols: str, tier: Tier = "T1", calendar: str = "24/7") -> None:
    for symbol in symbols:
        await universe.add(database, Instrument(symbol, "SYNTHETIC", "crypto", calendar, tier=tier))


def sweeper(database: Database, clock: Clock, *providers: BarProvider, batch: int = 500) -> Sweeper:
    policy = GatewayPolicy(timeout_s=60.0)
    sources: Mapping[str, Gateway] = {each.name: Gateway(each, clock, policy) for each in providers}
    return Sweeper(database, sources, clock, batch=batch)


async def look(one: Sweeper, clock: Clock, cadence: Cadence = MINUTES) -> Sweep:
    return await one.sweep(cadence, clock.now() + timedelta(seconds=cadence.cadence_s))


async def stored(
    database: Database, symbol: str, interval: Interval = M1
) -> list[tuple[str, str, bool, int]]:
    """Open, source, finality and revision of its bars."""
    table = await stored_bars.read(database, symbol, interval)
    return [
        (f"{row['ts']:%H:%M}", row["source"], row["is_final"], row["revision"]) for row in table.to_pylist()
    ]


async def truth(symbol: str, name: str, start: datetime, end: datetime) -> pa.Table:
    """The last values of its bars, whenever they are asked for."""
    table = await SyntheticProvider().bars(symbol, M1, start, end)
    return changed(table, "source", pa.repeat(pa.scalar(name), table.num_rows))
