"""A queue on a database of these tests' own, emptied before each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from cluster.market import calendars
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from cluster.storage.embedded.postgres import EmbeddedPostgres
from tests.conftest import execute

_NAME = "backfill_tests"
_EMPTY = """
TRUNCATE backfill_jobs, backfill_attempts, backfill_pauses, known_gaps, symbol_universe,
         candles_daily, candles_intraday, gaps, gap_watermarks, calendar_overrides, effect
"""


@pytest.fixture(scope="session")
def backfill_dsn(postgres: EmbeddedPostgres, postgres_dsn: str, template_database: str) -> Iterator[str]:
    """One database for all of them: making one takes longer than most of the tests."""
    execute(postgres_dsn, f"CREATE DATABASE {_NAME} TEMPLATE {template_database}")
    execute(postgres.dsn(_NAME), "CREATE TABLE effect (n int)")
    yield postgres.dsn(_NAME)
    execute(postgres_dsn, f"DROP DATABASE {_NAME} WITH (FORCE)")


@pytest.fixture
async def database(backfill_dsn: str) -> AsyncIterator[Database]:
    """A pool on empty tables."""
    database = await Database.open(backfill_dsn)
    await database.pool.execute(_EMPTY)
    await database.pool.execute("UPDATE rollup_state SET kept_from = '-infinity'")
    await database.pool.execute("DELETE FROM gap_dirty_ranges")  # in which emptying the bars is noted
    yield database
    await database.close()


@pytest.fixture
def queue(database: Database) -> BackfillQueue:
    """A queue with the usual rules and without limits."""
    return BackfillQueue(database)


@pytest.fixture(autouse=True)
def calendars_of_the_library() -> Iterator[None]:
    """What a test declares about sessions, which a scan installs for the whole process, ends with it."""
    yield
    calendars.install_overrides([])
