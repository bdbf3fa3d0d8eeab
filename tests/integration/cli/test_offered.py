"""`finsight symbols offered`, with Binance on loopback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.market import universe_csv
from tests.commands import finsight
from tests.services import binance
from tests.services.binance import Binance


@pytest.fixture
def venue() -> Binance:
    venue = Binance()
    venue.list_symbol("BTCUSDT", "BTC", "USDT")
    venue.list_symbol("ETHBTC", "ETH", "BTC")
    venue.list_symbol("OLDUSDT", "OLD", "USDT", status="BREAK")
    return venue


def offered(url: str, tmp_path: Path, *words: str, **settings: str) -> str:
    providers = json.dumps({"binance": {"base_url": url}})
    here = {"FINSIGHT_HOME": str(tmp_path), "FINSIGHT_PROVIDERS": providers, **settings}
    said = finsight("symbols", "offered", *words, **here)
    assert said.status == 0, said.err
    return said.out


def test_what_a_venue_lists_becomes_a_file_that_can_be_imported(venue: Binance, tmp_path: Path) -> None:
    with binance.running(venue) as url:
        text = offered(url, tmp_path, "binance", "--currency", "USDT", "--tier", "T1")
    assert text == (
        "symbol,exchange,asset_type,calendar,name,currency,tier\n"
        "BTCUSDT,BINANCE,crypto,24/7,BTC/USDT,USDT,T1\n"
    )
    (bitcoin,) = universe_csv.parse(text.splitlines(keepends=True)).instruments
    assert (bitcoin.currency, bitcoin.tier) == ("USDT", "T1")
    assert [asked.path for asked in venue.asked] == ["/api/v3/exchangeInfo"]


def test_what_does_not_trade_now_is_listed_when_asked_for(venue: Binance, tmp_path: Path) -> None:
    with binance.running(venue) as url:
        lines = offered(url, tmp_path, "binance", "--all", "--tier", "T1").splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == ["BTCUSDT", "ETHBTC", "OLDUSDT"]
    assert lines[3].endswith(",OLD/USDT,USDT,T1,false")


def test_importing_what_is_offered_keeps_tier_and_activity_of_known_symbols(
    venue: Binance, tmp_path: Path, database_url: str
) -> None:
    here = {"DATABASE_URL": database_url, "FINSIGHT_HOME": str(tmp_path)}
    finsight("symbols", "add", "BTCUSDT", "--exchange", "X", "--type", "crypto", "--tier", "T0", **here)
    finsight("symbols", "set", "BTCUSDT", "--inactive", **here)
    with binance.running(venue) as url:
        (tmp_path / "offered.csv").write_text(offered(url, tmp_path, "binance", **here) + "\n")
    assert finsight("symbols", "import", str(tmp_path / "offered.csv"), **here).status == 0
    listed = finsight("symbols", "--all", "--json", **here).json
    assert [(each["symbol"], each["exchange"], each["tier"], each["active"]) for each in listed] == [
        ("BTCUSDT", "BINANCE", "T0", False),
        ("ETHBTC", "BINANCE", "T3", True),
    ]
