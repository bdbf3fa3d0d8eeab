from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cluster.errors import InputError
from cluster.market.symbols import Instrument
from cluster.storage import universe, universe_versions
from cluster.storage.database import Database

pytestmark = pytest.mark.postgres

AAPL = Instrument("AAPL", "NASDAQ", "equity", "XNYS", "Apple", tier="T0", adv_21d=5e7, mkt_cap=3e12)
BTC = Instrument("BTC-USD", "BINANCE", "crypto", "24/7", tier="T1")
SPX = Instrument("SPX", "NYSE", "index", "XNYS", active=False)


async def test_an_instrument_is_found_as_it_was_stored(database: Database) -> None:
    await universe.import_all(database, [SPX, AAPL], "w1", {})
    assert await universe.get(database, "AAPL") == AAPL
    assert await universe.get(database, "SPX") == SPX


async def test_an_unknown_symbol_is_none(database: Database) -> None:
    assert await universe.get(database, "AAPL") is None


async def test_importing_again_brings_up_to_date(database: Database) -> None:
    await universe.import_all(database, [AAPL], "w1", {})
    await universe.import_all(database, [replace(AAPL, tier="T1", mkt_cap=None)], "w2", {})
    assert await universe.get(database, "AAPL") == replace(AAPL, tier="T1", mkt_cap=None)


async def test_importing_the_same_again_touches_no_row(database: Database) -> None:
    when = "SELECT updated_at FROM symbol_universe"
    await universe.import_all(database, [BTC], "w1", {})
    before = await database.pool.fetchval(when)
    await universe.import_all(database, [BTC], "w2", {})
    assert await database.pool.fetchval(when) == before


async def test_the_list_is_by_symbol_and_of_active_ones(database: Database) -> None:
    await universe.import_all(database, [SPX, BTC, AAPL], "w1", {})
    assert await universe.listed(database) == [AAPL, BTC]
    assert await universe.listed(database, active_only=False) == [AAPL, BTC, SPX]
    assert await universe.listed(database, tier="T1") == [BTC]


async def test_the_list_is_paged_by_symbol(database: Database) -> None:
    await universe.import_all(database, [SPX, BTC, AAPL], "w1", {})
    assert await universe.listed(database, limit=1) == [AAPL]
    assert await universe.listed(database, after="AAPL", limit=1) == [BTC]


async def test_a_version_keeps_where_it_came_from(database: Database) -> None:
    await universe.add_missing(database, [AAPL], "2025w41", {"source": "manual"})
    await universe.add_missing(database, [BTC], "2025w42", {})
    found = await universe_versions.listed(database)
    assert [(version.version_tag, version.source_meta) for version in found] == [
        ("2025w42", {"added": ["BTC-USD"]}),
        ("2025w41", {"source": "manual", "added": ["AAPL"]}),
    ]


async def test_a_tag_names_one_version(database: Database) -> None:
    await universe.add_missing(database, [AAPL], "2025w41", {})
    with pytest.raises(InputError, match="'2025w41' exists already"):
        await universe.add_missing(database, [BTC], "2025w41", {})
    assert await universe.get(database, "BTC-USD") is None


async def test_older_versions_follow_page_by_page(database: Database) -> None:
    made = [(await universe.import_all(database, [], tag, {})).version for tag in ("w1", "w2", "w3")]
    first = await universe_versions.listed(database, limit=2)
    assert first == made[:0:-1]
    assert await universe_versions.listed(database, limit=2, before=first[-1].id) == made[:1]


async def test_adding_tells_whether_the_symbol_was_new_and_leaves_an_old_one_alone(
    database: Database,
) -> None:
    assert await universe.add(database, AAPL) is True
    assert await universe.add(database, replace(AAPL, tier="T3")) is False
    assert await universe.get(database, "AAPL") == AAPL


async def test_two_changes_of_different_fields_at_once_are_both_kept(database: Database) -> None:
    await universe.add(database, AAPL)
    changes: list[dict[str, object]] = [{"tier": "T3"}, {"name": "Apple Inc."}] * 5
    await asyncio.gather(*(universe.change(database, "AAPL", change) for change in changes))
    assert await universe.get(database, "AAPL") == replace(AAPL, tier="T3", name="Apple Inc.")
    assert await universe.change(database, "MSFT", {"tier": "T3"}) is None


async def test_an_import_adds_and_changes_and_keeps_what_it_did_as_a_version(database: Database) -> None:
    await universe.add_missing(database, [AAPL, SPX], "w40", {})
    done = await universe.import_all(database, [replace(AAPL, tier="T1"), BTC, SPX], "w41", {"file": "a.csv"})
    assert (done.added, done.changed, done.unchanged) == (["BTC-USD"], ["AAPL"], 1)
    version, _ = await universe_versions.listed(database)
    assert version == done.version
    assert version.source_meta == {
        "file": "a.csv",
        "added": ["BTC-USD"],
        "changed": ["AAPL"],
        "deactivated": [],
    }
    assert await universe.listed(database, active_only=False) == [replace(AAPL, tier="T1"), BTC, SPX]


async def test_an_import_under_a_taken_tag_changes_nothing(database: Database) -> None:
    await universe.import_all(database, [], "w41", {})
    with pytest.raises(InputError, match="choose another tag"):
        await universe.import_all(database, [AAPL], "w41", {})
    assert await universe.listed(database) == []


async def test_an_import_leaves_alone_what_the_file_has_no_column_for(database: Database) -> None:
    await universe.import_all(database, [AAPL, SPX], "w1", {})
    told = [Instrument("AAPL", "NYSE", "equity", "24/7"), Instrument("SPX", "NYSE", "equity", "XNYS"), BTC]
    done = await universe.import_all(database, told, "w2", {}, columns=("symbol", "exchange", "mkt_cap"))
    assert (done.added, done.changed, done.unchanged) == (["BTC-USD"], ["AAPL"], 1)
    assert await universe.get(database, "AAPL") == replace(AAPL, exchange="NYSE", mkt_cap=None)
    assert await universe.get(database, "SPX") == SPX
    assert await universe.get(database, "BTC-USD") == BTC


async def test_a_tag_that_nobody_can_read_is_refused_and_nothing_changed(database: Database) -> None:
    for tag in ("", "t" * 257, "a\nb"):
        with pytest.raises(InputError, match="version tag"):
            await universe.import_all(database, [AAPL], tag, {})
    assert await universe.listed(database) == []
