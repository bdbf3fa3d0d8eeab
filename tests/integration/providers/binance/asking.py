"""How the tests of this folder ask the venue on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from cluster.clock import FakeClock
from cluster.market.intervals import Interval
from cluster.providers.binance import BinanceProvider

NOW = datetime(2024, 6, 3, 12, 0, 30, tzinfo=UTC)
START = datetime(2024, 6, 3, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@asynccontextmanager
async def client(
    url: str, clock: FakeClock, api_key: str = "", timeout_s: float = 20.0
) -> AsyncIterator[BinanceProvider]:
    """A client that is closed in the end."""
    provider = BinanceProvider(url, api_key, clock.now, timeout_s=timeout_s)
    try:
        yield provider
    finally:
        await provider.close()


async def minutes(provider: BinanceProvider, first: int, last: int) -> list[str]:
    """The opens of the bars of [START + first, START + last) minutes."""
    table = await provider.bars("BTCUSDT", Interval.M1, START + first * MINUTE, START + last * MINUTE)
    return [f"{ts:%H:%M}" for ts in table["ts"].to_pylist()]
