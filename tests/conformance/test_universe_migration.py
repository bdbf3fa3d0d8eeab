"""A database from before the universe had its checks, with rows that break them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from cluster.backfill import missing
from cluster.backfill.missing import Wanted
from cluster.clock import FakeClock
from cluster.errors import InputError
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.storage import universe, universe_versions
from cluster.storage.database import Database
from cluster.storage.migrate import SCHEMA, migrate
from tests.conformance.candle_servers import fresh, server
from tests.integration.ingest.market import LIVE, Named, at, look, sweeper

pytestmark = pytest.mark.postgres

_OLD_ROWS = """
INSERT INTO symbol_universe (symbol, exchange, asset_type, tier) VALUES
    ('AAPL', 'NASDAQ', 'equity', 'T0'), ('SYN0001', 'X', 'crypto', 'T0'), ('BTC/USDT', 'X', 'crypto', 'T0'),
    ('MSFT', 'NASDAQ', 'stock', 'T0'), ('NVDA', 'NASDAQ', 'equity', 'T0'), ('ODD', '', 'equity', 'T1'),
    ('ODD2', '', 'equity', 'T1')
"""
_AAPL = Instrument("AAPL", "NASDAQ", "equity", "XNYS", tier="T0")
_SYN = Instrument("SYN0001", "X", "crypto", "24/7", tier="T0")
_NVDA = Instrument("NVDA", "NASDAQ", "equity", "XNYS", tier="T0")


@pytest.fixture(scope="module")
def dsn(storage: str, postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Migrated, with rows that were there before the checks."""
    before = tmp_path_factory.mktemp("schema")
    for file in SCHEMA.glob("*.sql"):
        if file.name < "0018":
            shutil.copy(file, before)
    with fresh(server(storage, postgres_dsn), None) as made:
        migrate(made, before)
        asyncio.run(_add_old_rows(made))
        migrate(made)
        yield made


async def _add_old_rows(dsn: str) -> None:
    database = await Database.open(dsn, max_size=1)
    await database.pool.execute(_OLD_ROWS)
    await database.close()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    opened = await Database.open(dsn, max_size=2)
    yield opened
    await opened.close()


async def test_rows_that_cannot_be_read_are_left_out_told_once_and_stop_nobody(database: Database) -> None:
    universe._tell_unreadable.cache_clear()
    with capture_logs() as logs:
        for _ in range(2):
            assert await universe.listed(database, tier="T0") == [_AAPL, _NVDA, _SYN]
    assert [(each["symbol"], each["event"]) for each in logs] == [
        ("BTC/USDT", "symbol_left_out"),
        ("MSFT", "symbol_left_out"),
    ]
    now = datetime.now(UTC)
    assert await universe.listed(database, tier="T0", as_of=now) == [_AAPL, _NVDA, _SYN]
    assert await universe.get(database, "MSFT") is None


async def test_a_tier_with_rows_that_cannot_be_read_is_collected(database: Database) -> None:
    clock = FakeClock(at(0, 0.5))
    done = await look(sweeper(database, clock, Named("a", clock)), clock, LIVE)
    assert (done.symbols, done.failed, done.bars > 0) == (3, 0, True)


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_pages_are_full_where_rows_are_left_out(database: Database, limit: int) -> None:
    found: list[Instrument] = []
    while page := await universe.listed(
        database, tier="T0", limit=limit, after=found[-1].symbol if found else ""
    ):
        assert len(page) == min(limit, 3 - len(found))
        found += page
    assert found == [_AAPL, _NVDA, _SYN]


async def test_crypto_that_had_the_calendar_of_new_york_never_closes_and_the_history_says_since_when(
    database: Database,
) -> None:
    rows = await database.pool.fetch(
        "SELECT calendar FROM symbol_universe_history WHERE symbol = 'SYN0001' ORDER BY valid_from"
    )
    assert [row["calendar"] for row in rows] == ["XNYS", "24/7"]
    (version,) = await universe_versions.listed(database)
    assert version.source_meta == {"source": "migration", "changed": ["BTC/USDT", "SYN0001"]}


async def test_a_row_from_before_is_mended_by_what_makes_it_right_and_by_nothing_less(
    database: Database,
) -> None:
    with pytest.raises(InputError, match="exchange must not be empty"):
        await universe.change(database, "ODD", {"tier": "T2"})
    mended = await universe.change(database, "ODD", {"exchange": "X"})
    assert mended == Instrument("ODD", "X", "equity", "XNYS", tier="T1")
    assert await universe.get(database, "ODD") == mended
    with pytest.raises(InputError, match="asset_type 'stock' is none of"):
        await universe.change(database, "MSFT", {"tier": "T2"})


async def test_a_calendar_that_nobody_knows_hides_no_other_gaps(database: Database) -> None:
    start, end = datetime(2025, 10, 8, tzinfo=UTC), datetime(2025, 10, 9, tzinfo=UTC)
    wrong = Instrument("NOPE", "X", "equity", "NOPE")
    with capture_logs() as logs:
        found = await missing.find(
            database, [Wanted(each, start, end) for each in (wrong, _AAPL)], Interval.D1
        )
    assert [(each.instrument, each.gap.missing) for each in found] == [(_AAPL, 1)]
    assert [(each["event"], each["first"]) for each in logs] == [("calendar_unknown", "NOPE")]
    with pytest.raises(InputError, match="covers"):
        await missing.find(database, [Wanted(_AAPL, datetime(1800, 1, 1, tzinfo=UTC), end)], Interval.D1)


async def test_many_are_changed_or_set_inactive_at_once_whatever_rows_are_among_them(
    database: Database,
) -> None:
    """Last of this file: no wrong row is made active again."""
    wanted = {symbol: {"tier": "T1"} for symbol in ("AAPL", "MSFT", "ODD2")}
    version = await universe.change_all(database, wanted, "w1", {})
    assert version.source_meta == {"changed": ["AAPL"]}
    assert await universe.get(database, "AAPL") == replace(_AAPL, tier="T1")
    done = await universe.import_all(database, [_NVDA], "w2", {}, deactivate_missing=True)
    assert done.deactivated == ["AAPL", "BTC/USDT", "MSFT", "ODD", "ODD2", "SYN0001"]
    assert await universe.listed(database) == [_NVDA]
    with pytest.raises(InputError, match="asset_type 'stock' is none of"):
        await universe.change(database, "MSFT", {"active": True})
