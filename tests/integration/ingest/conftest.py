"""A database of these tests' own, emptied before each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from cluster.storage.database import Database
from cluster.storage.embedded.postgres import EmbeddedPostgres
from tests.conftest import execute

_NAME = "ingest_tests"
_EMPTY = "TRUNCATE symbol_universe, candles_daily, candles_intraday, collection_sweeps"


@pytest.fixture(scope="session")
def ingest_dsn(postgres: EmbeddedPostgres, postgres_dsn: str, template_database: str) -> Iterator[str]:
    """One database for all of them: making one takes longer than most of the tests."""
    execute(postgres_dsn, f"CREATE DATABASE {_NAME} TEMPLATE {template_database}")
    yield postgres.dsn(_NAME)
    execute(postgres_dsn, f"DROP DATABASE {_NAME} WITH (FORCE)")


@pytest.fixture
async def database(ingest_dsn: str) -> AsyncIterator[Database]:
    """A pool on empty tables."""
    database = await Database.open(ingest_dsn)
    await database.pool.execute(_EMPTY)
    yield database
    await database.close()
