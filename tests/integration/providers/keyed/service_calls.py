"""What the tests of services with keys have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.clock import FakeClock
from cluster.errors import FinSightError, ProviderDown, Unauthorized
from cluster.market.intervals import Interval
from cluster.providers.gateway import Gateway
from cluster.providers.protocol import BarProvider, Closing
from tests.services import faults

NOW = datetime(2024, 6, 10, 12, tzinfo=UTC)


Client = TypeVar("Client", bound=Closing)


class Service(Protocol):
    """A service on loopback that wants a key."""

    key: str
    faults: deque[ASGIApp]
    asked: list[Any]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        ...


class KeyedClient(BarProvider, Closing, Protocol):
    """What these tests are about."""


def utc(text: str) -> datetime:
    """A moment in UTC, such as `2024-06-03 13:30`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


SESSION = utc("2024-06-03 13:30"), utc("2024-06-03 20:00")
"""A session of New York."""


@asynccontextmanager
async def closed_after(provider: Client) -> AsyncIterator[Client]:
    """The client, closed in the end."""
    try:
        yield provider
    finally:
        await provider.close()


class KeyedServiceTests(ABC):
    """Of one client what holds for all; its class has fixtures `leak` and `wrong` besides what is here.

    `leak` is one fault after another that tells the key, `wrong` one after another with the error it is.
    """

    symbol: str
    key: str
    setting: str
    """Where the key comes from."""

    @abstractmethod
    def client(self, url: str, clock: FakeClock, key: str, timeout_s: float = 20.0) -> KeyedClient:
        """The client under test."""

    async def test_without_a_key_nothing_is_asked(self, url: str, service: Service, clock: FakeClock) -> None:
        async with closed_after(self.client(url, clock, "")) as provider:
            with pytest.raises(Unauthorized, match=self.setting):
                await provider.bars(self.symbol, Interval.M15, *SESSION)
        assert service.asked == []

    async def test_a_key_that_is_not_accepted_is_named_with_its_setting(
        self, provider: KeyedClient, service: Service
    ) -> None:
        service.key = "another"
        with pytest.raises(Unauthorized, match=self.setting):
            await provider.bars(self.symbol, Interval.M15, *SESSION)

    async def test_the_key_is_in_no_error_and_in_no_log(
        self,
        provider: KeyedClient,
        service: Service,
        clock: FakeClock,
        leak: ASGIApp,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(0)
        gateway = Gateway(provider, clock)
        service.faults.append(leak)
        with pytest.raises(FinSightError) as failed:
            await gateway.fetch(self.symbol, Interval.M15, *SESSION)
        told = [*capsys.readouterr(), caplog.text, repr(failed.value), str(gateway.stats())]
        error: BaseException | None = failed.value
        while error is not None:
            told.append(str(error))
            error = error.__cause__ or error.__context__
        assert [text for text in told if self.key in text] == []

    async def test_what_goes_wrong_on_the_way_is_told_in_our_errors(
        self, provider: KeyedClient, service: Service, wrong: tuple[ASGIApp, type[FinSightError]]
    ) -> None:
        fault, error = wrong
        service.faults.append(fault)
        with pytest.raises(error):
            await provider.bars(self.symbol, Interval.M15, *SESSION)

    async def test_a_server_that_hangs_is_down(self, url: str, service: Service, clock: FakeClock) -> None:
        service.faults.append(faults.hang)
        async with closed_after(self.client(url, clock, self.key, timeout_s=0.2)) as provider:
            with pytest.raises(ProviderDown, match=r"0\.2 s"):
                await provider.bars(self.symbol, Interval.M15, *SESSION)
