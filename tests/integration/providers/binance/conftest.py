"""A venue on loopback, and a client of it; one server for all tests of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.types import Receive, Scope, Send

from cluster.clock import FakeClock
from cluster.providers.binance import BinanceProvider
from tests.integration.providers.binance.asking import NOW, START, client
from tests.services import binance
from tests.services.binance import Binance


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def venue(clock: FakeClock) -> Binance:
    """BTCUSDT with bars of a minute from 10:00 on, the one of 12:00 still open."""
    venue = Binance(now=clock.now)
    venue.list_symbol("BTCUSDT", "BTC", "USDT")
    venue.fill("BTCUSDT", "1m", START, NOW)
    return venue


class Stage:
    """Where the venue of the running test answers, so that one server will do for all of them."""

    def __init__(self) -> None:
        self.url = ""
        self.venue = Binance()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.venue(scope, receive, send)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    with binance.running(stage) as stage.url:
        yield stage


@pytest.fixture
def url(stage: Stage, venue: Binance) -> str:
    stage.venue = venue
    return stage.url


@pytest.fixture
async def provider(url: str, clock: FakeClock) -> AsyncIterator[BinanceProvider]:
    async with client(url, clock) as provider:
        yield provider
