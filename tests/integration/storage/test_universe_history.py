"""Symbols as of a time: the same as playing all writes up to it again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cluster.market.symbols import Instrument
from cluster.storage import universe, universe_versions
from cluster.storage.audit import Author
from cluster.storage.database import Database
from jobs import history
from tests.integration.storage.test_contract_statements import ADD_SYMBOL

pytestmark = pytest.mark.postgres

AAPL = Instrument("AAPL", "NASDAQ", "equity", "XNYS", "Apple", tier="T0", adv_21d=5e7, mkt_cap=3e12)
ADMIN = Author("admin key 1f2e3d4c", "r-1", "10.0.0.1")

SYMBOLS = st.sampled_from(["A", "B", "C"])
PUT = """
INSERT INTO symbol_universe (symbol, exchange, asset_type, tier, active)
VALUES ('{0}', 'X', 'etf', '{1}', {2})
ON CONFLICT (symbol) DO UPDATE SET tier = excluded.tier, active = excluded.active
"""
WRITES = st.one_of(
    st.builds(PUT.format, SYMBOLS, st.sampled_from(["T0", "T3"]), st.booleans()),
    st.builds("UPDATE symbol_universe SET tier = '{}'".format, st.sampled_from(["T1", "T2"])),
    st.builds("DELETE FROM symbol_universe WHERE symbol = '{}'".format, SYMBOLS),
    st.just("TRUNCATE symbol_universe"),
    st.just("UPDATE symbol_universe SET symbol = 'D' WHERE symbol = 'A' AND NOT EXISTS "
            "(SELECT FROM symbol_universe WHERE symbol = 'D')"),
)  # fmt: skip


async def now(database: Database) -> datetime:
    moment: datetime = await database.pool.fetchval("SELECT clock_timestamp()")
    return moment


async def everything(database: Database, as_of: datetime | None = None) -> list[Instrument]:
    return await universe.listed(database, active_only=False, as_of=as_of)


@given(st.lists(st.lists(WRITES, min_size=1, max_size=4), max_size=6))
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_universe_as_of_a_time_is_that_of_all_writes_up_to_it(
    database_url: str, transactions: list[list[str]]
) -> None:
    async def check() -> None:
        database = await Database.open(database_url, max_size=1)
        try:
            await database.pool.execute("TRUNCATE symbol_universe; TRUNCATE symbol_universe_history")
            seen: list[tuple[datetime, list[Instrument]]] = [(await now(database), [])]
            for statements in transactions:
                async with database.transaction() as connection:
                    for statement in statements:
                        await connection.execute(statement)
                seen.append((await now(database), await everything(database)))
            for moment, then in seen:
                assert await everything(database, moment) == then, moment
        finally:
            await database.close()

    asyncio.run(check())


async def test_a_symbol_that_was_deleted_is_in_the_answer_as_of_before(database: Database) -> None:
    await universe.add(database, AAPL)
    before = await now(database)
    await database.pool.execute("DELETE FROM symbol_universe")
    assert await universe.listed(database) == []
    assert await universe.listed(database, as_of=before) == [AAPL]
    assert await universe.listed(database, as_of=before, tier="T1") == []


async def test_a_symbol_that_was_set_inactive_is_in_the_answer_as_of_before_in_its_tier(
    database: Database,
) -> None:
    await universe.add(database, AAPL)
    before = await now(database)
    await universe.change(database, "AAPL", {"active": False, "tier": "T3"})
    assert await universe.listed(database, tier="T0", as_of=before) == [AAPL]
    assert await universe.listed(database, as_of=await now(database)) == []


async def test_pages_of_the_past_follow_each_other(database: Database) -> None:
    for symbol in "ABC":
        await universe.add(database, replace(AAPL, symbol=symbol))
    moment = await now(database)
    await database.pool.execute("TRUNCATE symbol_universe")
    first = await universe.listed(database, as_of=moment, limit=2)
    rest = await universe.listed(database, as_of=moment, after=first[-1].symbol, limit=2)
    assert [each.symbol for each in first + rest] == ["A", "B", "C"]


async def test_a_statement_typed_by_hand_is_in_the_history(database: Database) -> None:
    await database.pool.execute(ADD_SYMBOL.replace("'T0'", "'T3'"))
    before = await now(database)
    await database.pool.execute(ADD_SYMBOL)
    (then,) = await universe.listed(database, as_of=before)
    (today,) = await universe.listed(database)
    assert (then.symbol, then.tier, today.tier) == ("AAPL", "T3", "T0")


async def test_a_change_that_changes_nothing_makes_no_state_and_no_version(database: Database) -> None:
    await universe.add(database, AAPL)
    await universe.change(database, "AAPL", {"tier": "T0"}, by=ADMIN)
    await universe.add_missing(database, [AAPL], "w1", {})
    await database.pool.execute("UPDATE symbol_universe SET updated_at = now()")
    assert await database.pool.fetchval("SELECT count(*) FROM symbol_universe_history") == 1
    assert len(await universe_versions.listed(database)) == 1
    assert await audited(database) == []


async def test_of_two_transactions_the_state_of_the_last_to_write_holds_and_none_is_lost(
    database: Database,
) -> None:
    await universe.add(database, AAPL)
    async with database.transaction() as slow:
        await slow.execute("SELECT now()")
        await universe.change(database, "AAPL", {"tier": "T1"})
        between = await now(database)
        await slow.execute("UPDATE symbol_universe SET tier = 'T2'")
    assert [(each.symbol, each.tier) for each in await universe.listed(database, as_of=between)] == [
        ("AAPL", "T2")
    ]
    history = "SELECT tier FROM symbol_universe_history ORDER BY valid_from"
    assert [row["tier"] for row in await database.pool.fetch(history)] == ["T0", "T1", "T2"]


async def test_the_universe_as_of_a_version_is_that_of_the_version(database: Database) -> None:
    await universe.import_all(database, [AAPL], "w1", {})
    await universe.import_all(database, [replace(AAPL, symbol="MSFT")], "w2", {}, deactivate_missing=True)
    second, first = await universe_versions.listed(database)
    assert [each.symbol for each in await universe.listed(database, as_of=first.created_at)] == ["AAPL"]
    assert [each.symbol for each in await universe.listed(database, as_of=second.created_at)] == ["MSFT"]
    assert second.source_meta["deactivated"] == ["AAPL"]


async def test_what_is_there_when_the_history_begins_counts_from_its_creation_on(database: Database) -> None:
    """The seed of the migration, on rows that were there before it."""
    created = datetime(2024, 1, 1, tzinfo=UTC)
    from cluster.storage.migrate import SCHEMA

    text = (SCHEMA / "0011_universe_history.sql").read_text()
    seed = text[text.index("INSERT INTO symbol_universe_history (symbol, valid_from, exchange, asset_type, "
                           "adv_21d, mkt_cap, tier, active,\n") :]  # fmt: skip
    await database.pool.execute(ADD_SYMBOL)
    await database.pool.execute("UPDATE symbol_universe SET created_at = $1", created)
    await database.pool.execute("TRUNCATE symbol_universe_history")
    await database.pool.execute(seed[: seed.index(";")])
    assert await universe.listed(database, as_of=created - timedelta(days=1)) == []
    assert [each.symbol for each in await universe.listed(database, as_of=created)] == ["AAPL"]


async def test_every_write_names_its_author_in_the_audit_log(database: Database) -> None:
    await universe.add(database, replace(AAPL, tier="T3"), by=ADMIN)
    await universe.change(database, "AAPL", {"tier": "T0"}, by=ADMIN)
    await universe.change_all(database, {"AAPL": {"tier": "T1"}, "NONE": {"tier": "T1"}}, "w1", {}, by=ADMIN)
    assert [(row["action"], row["target"]) for row in await audited(database)] == [
        ("symbol.add", "AAPL"),
        ("symbol.change", "AAPL"),
        ("symbols.change", "w1"),
    ]
    row = (await audited(database))[1]
    assert (row["who"], row["request_id"], row["address"]) == ("admin key 1f2e3d4c", "r-1", "10.0.0.1")
    assert row["detail"] == '{"after": {"tier": "T0"}, "before": {"tier": "T3"}}'


async def test_a_write_that_is_rolled_back_leaves_no_trace(database: Database) -> None:
    await universe.import_all(database, [], "w1", {})
    with pytest.raises(Exception, match="choose another tag"):
        await universe.import_all(database, [AAPL], "w1", {}, by=ADMIN)
    assert await audited(database) == []
    assert await database.pool.fetchval("SELECT count(*) FROM symbol_universe_history") == 0


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_log SET who = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
async def test_nobody_changes_the_audit_log_by_mistake(database: Database, statement: str) -> None:
    await universe.add(database, AAPL, by=ADMIN)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await database.pool.execute(statement)
    assert len(await audited(database)) == 1


async def audited(database: Database) -> list[Any]:
    """Every entry of the audit log, oldest first."""
    rows: list[Any] = await database.pool.fetch("SELECT * FROM audit_log ORDER BY id")
    return rows


async def test_training_as_of_a_time_takes_the_symbols_that_were_active_then(database: Database) -> None:
    for symbol in ("AAPL", "FAILED"):
        await universe.add(database, replace(AAPL, symbol=symbol))
    before = await now(database)
    await database.pool.execute("DELETE FROM symbol_universe WHERE symbol = 'FAILED'")
    assert await history.chosen(database, [], before) == ["AAPL", "FAILED"]
    assert await history.chosen(database, []) == ["AAPL"]
