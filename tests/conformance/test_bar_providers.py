"""What every provider of bars must do; each one says only what it is asked and what it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import InvalidSymbol
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.binance import BinanceProvider
from cluster.providers.protocol import BarProvider
from cluster.providers.sample import SampleProvider
from cluster.providers.synthetic import SyntheticProvider
from tests.services import binance


class BarProviderTests:
    """Subclass it, and give a provider with bars of `symbol` in [start, end) for every interval it offers."""

    symbol: str
    unknown_symbol: str
    start: datetime
    end: datetime

    async def ask(self, provider: BarProvider, interval: Interval) -> pa.Table:
        return await provider.bars(self.symbol, interval, self.start, self.end)

    async def test_the_bars_have_the_schema_and_hold_the_invariants(self, provider: BarProvider) -> None:
        for interval in provider.capabilities.intervals:
            table = await self.ask(provider, interval)
            assert table.schema == bars.BAR_SCHEMA
            assert table.num_rows > 1
            assert bars.validate(table, datetime.now(UTC)).good.equals(table)

    async def test_symbol_interval_and_source_are_those_that_were_asked(self, provider: BarProvider) -> None:
        for interval in provider.capabilities.intervals:
            table = await self.ask(provider, interval)
            named = {name: set(table[name].to_pylist()) for name in ("symbol", "interval", "source")}
            assert named == {
                "symbol": {self.symbol},
                "interval": {str(interval)},
                "source": {provider.name},
            }

    async def test_bars_are_ascending_and_unique(self, provider: BarProvider) -> None:
        for interval in provider.capabilities.intervals:
            opens = bars.opens(await self.ask(provider, interval))
            assert np.all(np.diff(opens) > np.timedelta64(0, "us"))

    async def test_the_range_is_half_open(self, provider: BarProvider) -> None:
        for interval in provider.capabilities.intervals:
            opens = (await self.ask(provider, interval))["ts"].to_pylist()
            middle = await provider.bars(self.symbol, interval, opens[0], opens[-1])
            assert middle["ts"].to_pylist() == opens[:-1]
            assert (await provider.bars(self.symbol, interval, opens[0], opens[0])).num_rows == 0

    async def test_a_sub_range_answers_the_same_bars(self, provider: BarProvider) -> None:
        for interval in provider.capabilities.intervals:
            whole = await self.ask(provider, interval)
            opens = whole["ts"].to_pylist()
            start = opens[len(opens) // 3] + timedelta(seconds=1)
            end = opens[2 * len(opens) // 3] + timedelta(seconds=1)
            part = await provider.bars(self.symbol, interval, start, end)
            assert part.equals(bars.between(whole, start, end))

    async def test_asking_twice_answers_the_same(self, provider: BarProvider) -> None:
        for interval in provider.capabilities.intervals:
            assert (await self.ask(provider, interval)).equals(await self.ask(provider, interval))

    async def test_a_range_without_bars_is_an_empty_table(self, provider: BarProvider) -> None:
        for interval in provider.capabilities.intervals:
            table = await provider.bars(
                self.symbol, interval, datetime(1980, 1, 1, tzinfo=UTC), datetime(1980, 2, 1, tzinfo=UTC)
            )
            assert table.equals(bars.empty())

    async def test_the_future_has_no_bars(self, provider: BarProvider) -> None:
        now = datetime.now(UTC)
        for interval in provider.capabilities.intervals:
            table = await provider.bars(
                self.symbol, interval, now + timedelta(days=1), now + timedelta(days=9)
            )
            assert table.num_rows == 0

    async def test_an_unknown_symbol_is_refused(self, provider: BarProvider) -> None:
        interval = min(provider.capabilities.intervals)
        with pytest.raises(InvalidSymbol, match=self.unknown_symbol):
            await provider.bars(self.unknown_symbol, interval, self.start, self.end)

    async def test_its_instruments_can_be_asked_for(self, provider: BarProvider) -> None:
        interval = min(provider.capabilities.intervals)
        for instrument in provider.instruments():
            assert isinstance(instrument, Instrument)
            assert (await provider.bars(instrument.symbol, interval, self.start, self.end)).num_rows > 0


class TestSample(BarProviderTests):
    symbol = "SPX"
    unknown_symbol = "AAPL"
    start = datetime(2018, 1, 1, tzinfo=UTC)
    end = datetime(2018, 3, 1, tzinfo=UTC)

    @pytest.fixture
    def provider(self) -> BarProvider:
        return SampleProvider()


class TestSynthetic(BarProviderTests):
    symbol = "SYN0003"
    unknown_symbol = "AAPL"
    start = datetime(2024, 2, 27, tzinfo=UTC)
    end = datetime(2024, 3, 5, tzinfo=UTC)

    @pytest.fixture
    def provider(self) -> BarProvider:
        return SyntheticProvider(seed=11, symbols=3)


class TestBinance(BarProviderTests):
    symbol = "BTCUSDT"
    unknown_symbol = "NOSUCHUSDT"
    start = datetime(2024, 2, 27, tzinfo=UTC)
    end = datetime(2024, 3, 5, tzinfo=UTC)

    @pytest.fixture
    async def provider(self) -> AsyncIterator[BarProvider]:
        venue = binance.Binance()
        venue.list_symbol("BTCUSDT", "BTC", "USDT")
        for interval in Interval:
            venue.fill("BTCUSDT", str(interval), self.start, self.end)
        with binance.running(venue) as url:
            provider = BinanceProvider(url)
            yield provider
            await provider.close()
