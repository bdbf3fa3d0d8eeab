from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.errors import InputError
from cluster.market.symbols import Instrument
from cluster.storage import universe
from cluster.storage.database import Database

pytestmark = pytest.mark.postgres

AAPL = Instrument("AAPL", "NASDAQ", "equity", "XNYS", "Apple", tier="T0", adv_21d=5e7, mkt_cap=3e12)
BTC = Instrument("BTC-USD", "BINANCE", "crypto", "24/7", tier="T1")
SPX = Instrument("SPX", "NYSE", "index", "XNYS", active=False)


async def test_an_instrument_is_found_as_it_was_stored(database: Database) -> None:
    await universe.upsert(database, [SPX, AAPL])
    assert await universe.get(database, "AAPL") == AAPL
    assert await universe.get(database, "SPX") == SPX


async def test_an_unknown_symbol_is_none(database: Database) -> None:
    assert await universe.get(database, "AAPL") is None


async def test_storing_again_brings_up_to_date(database: Database) -> None:
    await universe.upsert(database, [AAPL])
    await universe.upsert(database, [replace(AAPL, tier="T1", mkt_cap=None)])
    assert await universe.get(database, "AAPL") == replace(AAPL, tier="T1", mkt_cap=None)


async def test_storing_the_same_again_touches_no_row(database: Database) -> None:
    when = "SELECT updated_at FROM symbol_universe"
    await universe.upsert(database, [BTC])
    before = await database.pool.fetchval(when)
    await universe.upsert(database, [BTC])
    assert await database.pool.fetchval(when) == before


async def test_the_list_is_by_symbol_and_of_active_ones(database: Database) -> None:
    await universe.upsert(database, [SPX, BTC, AAPL])
    assert await universe.listed(database) == [AAPL, BTC]
    assert await universe.listed(database, active_only=False) == [AAPL, BTC, SPX]
    assert await universe.listed(database, tier="T1") == [BTC]


async def test_the_list_is_paged_by_symbol(database: Database) -> None:
    await universe.upsert(database, [SPX, BTC, AAPL])
    assert await universe.listed(database, limit=1) == [AAPL]
    assert await universe.listed(database, after="AAPL", limit=1) == [BTC]


async def test_a_version_keeps_where_it_came_from(database: Database) -> None:
    await universe.add_version(database, "2025w41", {"source": "manual"})
    await universe.add_version(database, "2025w42", {})
    found = await universe.versions(database)
    assert [(version.version_tag, version.source_meta) for version in found] == [
        ("2025w42", {}),
        ("2025w41", {"source": "manual"}),
    ]


async def test_a_tag_names_one_version(database: Database) -> None:
    await universe.add_version(database, "2025w41", {})
    with pytest.raises(InputError, match="'2025w41' exists already"):
        await universe.add_version(database, "2025w41", {})
