from __future__ import annotations

import json
import os
import pwd
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.storage import universe_versions
from cluster.storage.database import Database
from tests.commands import finsight
from tests.integration.cli.conftest import on

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


def written(folder: Path, *lines: str) -> str:
    path = folder / "top 100.csv"
    path.write_text("\n".join(["symbol,exchange,tier", *lines, ""]), encoding="utf-8-sig")
    return str(path)


def test_a_file_is_imported_with_a_version_of_the_universe(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path = written(tmp_path, "SPX,INDEX,T0", "AAPL,NASDAQ,T1")
    said = finsight("symbols", "import", path, "--tag", "2025w41", "--json", **environment)
    assert (said.status, said.json) == (
        0,
        {"version": "2025w41", "added": 1, "changed": 1, "deactivated": 0, "unchanged": 0},
    )
    assert names(environment, "--tier", "T1") == ["AAPL"]
    assert names(environment) == ["AAPL", "IXIC", "SPX"]
    on(environment["DATABASE_URL"], _has_the_version)


async def _has_the_version(database: Database) -> None:
    version, *_ = await universe_versions.listed(database)
    assert version.version_tag == "2025w41"
    assert (version.source_meta["file"], version.source_meta["added"]) == ("top 100.csv", ["AAPL"])


def test_symbols_that_a_file_leaves_out_become_inactive_when_that_is_asked_for(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path = written(tmp_path, "SPX,INDEX,T0")
    said = finsight("symbols", "import", path, "--deactivate-missing", "--json", **environment)
    assert (said.json["changed"], said.json["deactivated"]) == (1, 1)
    assert (names(environment), names(environment, "--all")) == (["SPX"], ["IXIC", "SPX"])


def test_the_universe_is_listed_as_it_was_at_a_time(environment: dict[str, str]) -> None:
    before = datetime.now(UTC).isoformat()
    finsight("symbols", "set", "SPX", "--tier", "T0", "--inactive", **environment)
    assert names(environment) == ["IXIC"]
    then = finsight("symbols", "list", "--as-of", before, "--json", **environment).json
    assert then[1] == SPX
    long_ago = finsight("symbols", "list", "--as-of", "2000-01-01", "--json", **environment)
    assert long_ago.json == []


def test_what_a_command_changes_is_in_the_audit_log_with_the_user(
    environment: dict[str, str], tmp_path: Path
) -> None:
    finsight("symbols", "add", "BTC-USD", "--exchange", "X", "--type", "crypto", **environment)
    finsight("symbols", "set", "SPX", "--tier", "T0", **environment)
    finsight("symbols", "set", "SPX", "--tier", "T0", **environment)  # changes nothing
    path = written(tmp_path, "AAPL,NASDAQ,T1")
    finsight("symbols", "import", path, "--tag", "w41", **environment)

    async def check(database: Database) -> None:
        query = "SELECT who, action, target, detail, request_id FROM audit_log ORDER BY id"
        rows = [tuple(row) for row in await database.pool.fetch(query)]
        who = f"user {pwd.getpwuid(os.geteuid()).pw_name}"
        assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
            (who, "symbol.add", "BTC-USD", None),
            (who, "symbol.change", "SPX", None),
            (who, "symbols.import", "w41", None),
        ]
        assert json.loads(rows[1][3]) == {"before": {"tier": "T2"}, "after": {"tier": "T0"}}

    on(environment["DATABASE_URL"], check)


def test_tiers_are_shown_and_set_when_that_is_asked_for(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    path.write_text("symbol,exchange,tier,adv_21d,mkt_cap\nAAPL,NASDAQ,T3,50000000,3000000000000\n")
    finsight("symbols", "import", str(path), **environment)
    change = {"symbol": "AAPL", "before": "T3", "after": "T0", "adv_21d": 5e7, "mkt_cap": 3e12}

    shown = finsight("symbols", "tiers", "--json", **environment).json
    assert (shown, names(environment, "--tier", "T0")) == ({"changes": [change], "version": None}, [])

    applied = finsight("symbols", "tiers", "--apply", "--json", **environment).json
    assert (applied["changes"], names(environment, "--tier", "T0")) == ([change], ["AAPL"])
    assert finsight("symbols", "tiers", "--apply", "--json", **environment).json == {
        "changes": [],
        "version": None,
    }

    async def check(database: Database) -> None:
        version, *_ = await universe_versions.listed(database)
        assert version.version_tag == applied["version"]
        assert version.source_meta == {"source": "tiers", "sessions": 21, "changed": ["AAPL"]}

    on(environment["DATABASE_URL"], check)


def test_one_wrong_line_keeps_the_whole_file_out_and_is_named(
    environment: dict[str, str], tmp_path: Path
) -> None:
    path = written(tmp_path, "AAPL,NASDAQ,T1", "MSFT,NASDAQ,T9")
    said = finsight("symbols", "import", path, **environment)
    assert (said.status, said.out) == (1, "")
    assert "nothing was changed" in said.err
    assert "line 3: tier 'T9' is none of T0, T1, T2, T3" in said.err
    assert names(environment) == ["IXIC", "SPX"]


def test_a_dry_run_of_an_import_only_checks(environment: dict[str, str], tmp_path: Path) -> None:
    said = finsight(
        "symbols", "import", written(tmp_path, "AAPL,NASDAQ,T1"), "--dry-run", "--json", **environment
    )
    assert said.json == {"symbols": 1}
    assert names(environment) == ["IXIC", "SPX"]


def test_without_a_tag_the_version_is_named_after_file_and_time(
    environment: dict[str, str], tmp_path: Path
) -> None:
    said = finsight("symbols", "import", written(tmp_path, "AAPL,NASDAQ,"), "--json", **environment)
    assert said.json["version"].startswith("top 100-20")


def test_commands_check_what_they_write_as_the_other_ways_in_do(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for options, reason in (
        (("add", "AAPL", "--exchange", ""), "exchange must not be empty"),
        (("add", "AAPL", "--exchange", "X", "--name", "n" * 500), "name 'nnn"),
        (("set", "SPX", "--name", "a\x1bb"), "cannot be printed"),
        (("import", written(tmp_path, "AAPL,NASDAQ,T1"), "--tag", "t" * 3_000), "version tag 'ttt"),
    ):
        said = finsight("symbols", *options, **environment)
        assert (said.status, said.out, reason in said.err) == (1, "", True), said.err
        assert "Traceback" not in said.err
    assert finsight("symbols", "--json", **environment).json[1] == SPX
    assert names(environment) == ["IXIC", "SPX"]


def test_a_file_that_is_no_text_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "symbols.csv"
    path.write_bytes(b"symbol,exchange\nAAPL,\xff\n")
    said = finsight("symbols", "import", str(path), **environment)
    assert (said.status, "is not UTF-8" in said.err) == (1, True)
