"""A database of each storage, one a module: upkeep that a test does moves its state for good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from cluster.storage.database import Database
from tests.conformance.candle_servers import STORAGES, fresh, server
from tests.conformance.candle_tables import empty


@pytest.fixture(scope="module", params=STORAGES)
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def dsn(storage: str, postgres_dsn: str) -> Iterator[str]:
    with fresh(server(storage, postgres_dsn), "auto") as made:
        yield made


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    opened = await Database.open(dsn, max_size=6)
    await empty(opened)
    yield opened
    await opened.close()
