"""One migrated database for all tests of this folder, empty at the start of each."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cluster.storage.database import Database
from cluster.storage.embedded.postgres import EmbeddedPostgres
from tests.conftest import execute

EMPTY = """
DO $$
DECLARE
    part text;
BEGIN
    FOR part IN SELECT relid::text FROM pg_partition_tree('candles_intraday') WHERE level = 2
                UNION ALL SELECT relid::text FROM pg_partition_tree('candles_daily') WHERE level = 1
    LOOP
        EXECUTE 'DROP TABLE ' || part;
    END LOOP;
    IF candle_storage() = 'timescale' THEN
        TRUNCATE candles_intraday, candles_daily;
    END IF;
    DELETE FROM symbol_universe;
    DELETE FROM symbol_universe_history;
    ALTER TABLE audit_log DISABLE TRIGGER append_only;
    DELETE FROM audit_log;
    ALTER TABLE audit_log ENABLE TRIGGER append_only;
    DELETE FROM universe_versions;
    DELETE FROM feature_engineered_data;
    DELETE FROM predictions;
    DELETE FROM corporate_actions;
END
$$
"""


@pytest.fixture(scope="session")
def storage_dsn(postgres: EmbeddedPostgres, postgres_dsn: str, template_database: str) -> str:
    execute(postgres_dsn, f"CREATE DATABASE storage_tests TEMPLATE {template_database}")
    return postgres.dsn("storage_tests")


@pytest.fixture
async def database(storage_dsn: str) -> AsyncIterator[Database]:
    """Creating a database takes half a second, emptying it some milliseconds."""
    opened = await Database.open(storage_dsn, max_size=6)
    await opened.pool.execute(EMPTY)
    yield opened
    await opened.close()
