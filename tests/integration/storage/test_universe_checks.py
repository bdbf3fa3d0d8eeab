"""What the universe takes when it is told by statements."""

from __future__ import annotations

from typing import get_args

import asyncpg
import pytest

from cluster.errors import InputError
from cluster.market.symbols import AssetType, Instrument, Tier, parse_symbol
from cluster.market.universe_csv import default_calendar
from cluster.storage import universe
from cluster.storage.database import Database

pytestmark = pytest.mark.postgres

_ROW = """
INSERT INTO symbol_universe (symbol, exchange, asset_type, tier, currency, calendar)
VALUES ($1, $2, $3, $4, $5, $6)
"""
_RIGHT = {
    "symbol": "SPX",
    "exchange": "X",
    "asset_type": "index",
    "tier": "T0",
    "currency": "USD",
    "calendar": "XNYS",
}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"symbol": "BTC/USDT"}, "symbol: 1 to 32 of A-Z 0-9"),
        ({"asset_type": "stock"}, "asset_type: equity, etf, index, crypto, fx or future"),
        ({"tier": "T4"}, "tier: T0, T1, T2 or T3"),
        ({"exchange": " "}, "exchange must not be empty"),
        ({"calendar": ""}, "calendar must not be empty"),
        ({"currency": ""}, "currency must not be empty"),
    ],
)
async def test_a_wrong_row_is_refused_with_what_is_allowed(
    database: Database, wrong: dict[str, str], told: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=told):
        await database.pool.execute(_ROW, *{**_RIGHT, **wrong}.values())
    await database.pool.execute(_ROW, *_RIGHT.values())
    ((name, value),) = wrong.items()
    with pytest.raises(asyncpg.CheckViolationError, match=told):
        await database.pool.execute(f"UPDATE symbol_universe SET {name} = $1", value)


@pytest.mark.parametrize(
    "symbol",
    [
        "AAPL",
        "BRK.B",
        "EURUSD=X",
        "^GSPC",
        "7203.T",
        "A" * 32,
        "",
        "^",
        "-A",
        "aapl",
        "A" * 33,
        "A\n",
        "\u00c4",
        "A B",
    ],
)
async def test_the_table_takes_the_spellings_that_can_be_read(database: Database, symbol: str) -> None:
    try:
        await database.pool.execute(_ROW, *{**_RIGHT, "symbol": symbol}.values())
    except asyncpg.CheckViolationError:
        with pytest.raises(InputError):
            parse_symbol(symbol)
    else:
        assert parse_symbol(symbol) == symbol


async def test_every_kind_and_tier_has_its_place_and_the_calendar_of_its_kind(database: Database) -> None:
    for kind in get_args(AssetType):
        for tier in get_args(Tier):
            await database.pool.execute(
                "INSERT INTO symbol_universe (symbol, exchange, asset_type, tier) VALUES ($1, 'X', $2, $3)",
                f"{kind.upper()}-{tier}",
                kind,
                tier,
            )
    found = await universe.listed(database)
    assert len(found) == 24
    assert all(each.calendar == default_calendar(each.asset_type) for each in found)
    assert {each.asset_type for each in found if each.calendar == "24/7"} == {"crypto"}


async def test_a_calendar_that_is_named_is_kept(database: Database) -> None:
    await database.pool.execute(_ROW, *{**_RIGHT, "asset_type": "crypto", "calendar": "XNYS"}.values())
    assert await universe.get(database, "SPX") == Instrument("SPX", "X", "crypto", "XNYS", tier="T0")


async def test_what_only_the_table_refuses_is_wrong_input(database: Database) -> None:
    await universe.add(database, Instrument("SPX", "X", "index", "XNYS"))
    with pytest.raises(InputError) as refusal:
        await universe.change(database, "SPX", {"adv_21d": -1.0})
    assert str(refusal.value) == (
        "the universe does not take this, and nothing was changed: symbol_universe_adv_21d_check"
    )
