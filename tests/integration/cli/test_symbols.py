from __future__ import annotations

import pytest

from tests.commands import finsight

pytestmark = pytest.mark.postgres

SPX = {
    "symbol": "SPX",
    "exchange": "INDEX",
    "asset_type": "index",
    "calendar": "XNYS",
    "name": "S&P 500",
    "currency": "USD",
    "tier": "T2",
    "active": True,
    "adv_21d": None,
    "mkt_cap": None,
}


def names(environment: dict[str, str], *options: str) -> list[str]:
    return [each["symbol"] for each in finsight("symbols", "--json", *options, **environment).json]


def test_symbols_are_listed_without_naming_the_command(environment: dict[str, str]) -> None:
    assert finsight("symbols", "--json", **environment).json[1] == SPX
    text = finsight("symbols", **environment).out.splitlines()
    assert [line.split()[0] for line in text] == ["symbol", "IXIC", "SPX"]


def test_a_symbol_is_shown_with_what_is_stored(environment: dict[str, str]) -> None:
    shown = finsight("symbols", "show", "SPX", "--json", **environment).json
    stored = {
        "interval": "1d",
        "bars": 17,
        "first": "2018-12-03T14:30:00Z",
        "last": "2018-12-31T14:30:00Z",
    }
    assert shown == {**SPX, "stored": [stored]}
    text = finsight("symbols", "show", "SPX", **environment).out
    assert "17 bars, 2018-12-03 14:30Z to 2018-12-31 14:30Z" in text


def test_an_added_symbol_can_be_changed_and_set_inactive(environment: dict[str, str]) -> None:
    added = finsight(
        "symbols", "add", "BTC-USD", "--exchange", "X", "--type", "crypto", "--json", **environment
    )
    assert (added.json["calendar"], added.json["tier"], added.json["active"]) == ("24/7", "T2", True)

    changed = finsight("symbols", "set", "BTC-USD", "--tier", "T0", "--inactive", "--json", **environment)

    assert changed.json == {**added.json, "tier": "T0", "active": False}
    assert names(environment) == ["IXIC", "SPX"]
    assert names(environment, "--all", "--tier", "T0") == ["BTC-USD"]


def test_adding_a_symbol_twice_changes_nothing(environment: dict[str, str]) -> None:
    said = finsight("symbols", "add", "SPX", "--exchange", "NYSE", **environment)
    assert (said.status, said.out) == (1, "")
    assert "`finsight symbols set` changes it" in said.err
    assert finsight("symbols", "show", "SPX", "--json", **environment).json["exchange"] == "INDEX"


@pytest.mark.parametrize("command", [("show",), ("set", "--tier", "T0")])
def test_an_unknown_symbol_says_how_it_is_added(
    command: tuple[str, ...], environment: dict[str, str]
) -> None:
    said = finsight("symbols", command[0], "AAPL", *command[1:], **environment)
    assert (said.status, said.out) == (1, "")
    assert "Symbol AAPL is not in the universe" in said.err


def test_an_empty_universe_is_an_empty_list_and_a_hint(database_url: str) -> None:
    assert finsight("symbols", "--json", DATABASE_URL=database_url).json == []
    assert "`finsight ingest`" in finsight("symbols", DATABASE_URL=database_url).err


def test_a_database_without_tables_says_what_makes_them(postgres_dsn: str) -> None:
    said = finsight("symbols", DATABASE_URL=postgres_dsn)
    assert (said.status, said.out) == (1, "")
    assert "`finsight up` makes them" in said.err


def test_a_database_out_of_reach_names_the_commands_and_no_password() -> None:
    said = finsight("symbols", DATABASE_URL="postgresql://me:very-secret@127.0.0.1:9/finsight")
    assert (said.status, said.out) == (1, "")
    assert "127.0.0.1:9/finsight cannot be reached" in said.err
    assert "`finsight up` starts it" in said.err
    assert "very-secret" not in said.err
