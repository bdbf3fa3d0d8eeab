"""When the candle tables become hypertables, and that nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from cluster.errors import StorageError
from cluster.storage import retention, rollups, session_hours, timescale
from cluster.storage.database import Database
from cluster.storage.migrate import migrate
from tests.conformance.candle_servers import fresh, require_timescale
from tests.conformance.candle_tables import NOW, OLD, add, minutes, rolled, rows
from tests.integration.storage.bar_tables import bar, write

pytestmark = pytest.mark.postgres

DSN = require_timescale()

GIVEN_UP = datetime(2024, 3, 5, 14, 30, tzinfo=UTC)


@pytest.fixture
def native_dsn() -> Iterator[str]:
    """A database with native partitions on a server that has TimescaleDB."""
    with fresh(DSN, "off") as made:
        yield made


async def fill(database: Database) -> None:
    await add(database, "AAPL", "XNYS")
    await session_hours.align(database, NOW)
    await write(database, *minutes(GIVEN_UP, 60, volume=1.0))
    await rollups.refresh(database, NOW)
    assert await retention.drop_minutes(database, retention.horizon(NOW, 365)) != []
    await write(database, *minutes(OLD, 90), bar(ts=OLD, interval="1h"), bar(ts=OLD, interval="1d"))
    await rollups.refresh(database, NOW)


async def content(database: Database) -> list[Any]:
    bars = await rows(database, "SELECT * FROM market_data ORDER BY symbol, interval, timestamp")
    return [bars, await rolled(database, "candles_5m"), await rolled(database, "candles_1h")]


async def test_a_database_with_bars_stays_native_unless_it_is_asked_for(native_dsn: str) -> None:
    database = await Database.open(native_dsn)
    await write(database, *minutes(OLD, 3))
    migrate(native_dsn, use_timescale="auto")
    assert await rollups.storage(database) == "native"
    await database.close()


async def test_a_conversion_keeps_bars_and_rollups_and_those_whose_minutes_are_gone(native_dsn: str) -> None:
    database = await Database.open(native_dsn)
    await fill(database)
    before = await content(database)
    assert ("AAPL", GIVEN_UP) in [row[:2] for row in before[2]]
    await database.close()

    migrate(native_dsn, use_timescale="convert")
    database = await Database.open(native_dsn)
    assert await rollups.storage(database) == "timescale"
    await rollups.refresh(database, NOW)
    assert await content(database) == before
    compressed = await retention.compress(database, retention.horizon(NOW, 14))
    assert len(compressed) == 2  # minutes, and the hour; the daily chunk lasts a year
    assert await content(database) == before
    assert migrate(native_dsn, use_timescale="off") == []  # no way back, and none is tried
    assert await rollups.storage(database) == "timescale"
    await database.close()


async def test_a_conversion_that_fails_changes_nothing(native_dsn: str) -> None:
    database = await Database.open(native_dsn)
    await write(database, *minutes(OLD, 3))
    await database.pool.execute("CREATE VIEW of_mine AS SELECT * FROM candles_daily")
    with pytest.raises(StorageError, match=r"nothing was changed.*TIMESCALE=off"):
        migrate(native_dsn, use_timescale="convert")
    assert await rollups.storage(database) == "native"
    assert len(await rows(database, "SELECT * FROM candles_intraday")) == 3
    await database.close()


async def test_policies_of_the_contract_hold_in_the_catalog(native_dsn: str) -> None:
    migrate(native_dsn, use_timescale="auto")
    database = await Database.open(native_dsn)
    tables = await rows(
        database, "SELECT hypertable_name FROM timescaledb_information.hypertables ORDER BY 1"
    )
    assert tables == [("candles_daily",), ("candles_intraday",)]
    views = await rows(
        database, "SELECT view_name FROM timescaledb_information.continuous_aggregates ORDER BY 1"
    )
    assert views == [("rolled_1h",), ("rolled_5m",)]
    narrow = await rows(
        database,
        "SELECT attname FROM pg_attribute WHERE attrelid IN ('candles_intraday'::regclass, "
        "'candles_daily'::regclass) AND atttypid = 'int2'::regtype",
    )
    assert narrow == []
    await database.close()


class Cursor:
    """Says what a server would say about its extension."""

    def __init__(self, installed: str | None, available: str | None, loaded: bool, storage: str) -> None:
        self._row = (installed, available, loaded, storage)

    def execute(self, query: str) -> None:
        assert query == timescale._FOUND, "nothing may be changed"

    def fetchone(self) -> tuple[object, ...]:
        return self._row


@pytest.mark.parametrize(
    ("installed", "available", "loaded", "use"),
    [
        (None, None, False, "convert"),  # not there
        (None, "2.29.2", False, "convert"),  # not in shared_preload_libraries
        (None, "2.27.0", True, "convert"),  # loses bars
        ("2.17.2", "2.29.2", True, "convert"),  # installed, and not yet updated
        (None, "2.29.2", True, "off"),
    ],
)
def test_a_server_without_a_sound_extension_is_used_as_it_is(
    installed: str | None,
    available: str | None,
    loaded: bool,
    use: timescale.Use,
) -> None:
    assert timescale.adopt(Cursor(installed, available, loaded, "native"), use) == "native"


@pytest.mark.parametrize("version", ["2.26.4", "2.27.0", "2.9.3"])
def test_hypertables_of_a_version_that_loses_bars_are_refused(version: str) -> None:
    with pytest.raises(StorageError, match=f"TimescaleDB {version} loses bars.*ALTER EXTENSION"):
        timescale.adopt(Cursor(version, version, True, "timescale"), "auto")


@pytest.mark.parametrize("version", ["2.27.1", "2.29.2", "2.30.0-dev"])
def test_later_versions_are_taken_as_they_are(version: str) -> None:
    assert timescale.adopt(Cursor(version, version, True, "timescale"), "off") == version
