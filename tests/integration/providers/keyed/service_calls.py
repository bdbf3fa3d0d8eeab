"""What the tests of services with keys have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from cluster.providers.gateway import Gateway
from cluster.providers.protocol import Closing

NOW = datetime(2024, 6, 10, 12, tzinfo=UTC)


Client = TypeVar("Client", bound=Closing)


def utc(text: str) -> datetime:
    """A moment in UTC, such as `2024-06-03 13:30`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@asynccontextmanager
async def closed_after(provider: Client) -> AsyncIterator[Client]:
    """The client, closed in the end."""
    try:
        yield provider
    finally:
        await provider.close()


def telling(
    key: str,
    failed: BaseException,
    gateway: Gateway,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> list[str]:
    """Of all that was said about a failure the texts that have the key in them."""
    told = [*capsys.readouterr(), caplog.text, repr(failed), str(gateway.stats())]
    error: BaseException | None = failed
    while error is not None:
        told.append(str(error))
        error = error.__cause__ or error.__context__
    return [text for text in told if key in text]
