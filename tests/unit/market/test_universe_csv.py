from __future__ import annotations

import pytest

from cluster.errors import InputError
from cluster.market.symbols import Instrument
from cluster.market.universe_csv import parse


def parsed(text: str) -> list[Instrument]:
    return parse(text.splitlines(keepends=True)).instruments


def test_a_full_row_is_an_instrument() -> None:
    text = (
        "symbol,exchange,asset_type,calendar,name,currency,tier,active,adv_21d,mkt_cap\n"
        'AAPL,NASDAQ,equity,XNYS,"Apple, Inc.",USD,T0,true,50000000,3e12\n'
    )
    assert parsed(text) == [
        Instrument("AAPL", "NASDAQ", "equity", "XNYS", "Apple, Inc.", "USD", "T0", True, 5e7, 3e12)
    ]


def test_an_empty_cell_takes_the_default_and_crypto_never_closes() -> None:
    text = "exchange,symbol,asset_type,tier,adv_21d\nNYSE, IBM ,,,\nBINANCE,BTC-USD,crypto,,\n"
    assert parsed(text) == [
        Instrument("IBM", "NYSE", "equity", "XNYS"),
        Instrument("BTC-USD", "BINANCE", "crypto", "24/7"),
    ]


def test_the_columns_that_a_file_has_are_told() -> None:
    assert parse(["symbol,tier,exchange\n", "IBM,,NYSE\n"]).columns == ("symbol", "tier", "exchange")


def test_an_empty_calendar_needs_to_know_what_the_symbol_is() -> None:
    assert parsed("symbol,exchange,calendar\nBTC-USD,X,24/7\n")[0].calendar == "24/7"
    with pytest.raises(InputError, match=r"^line 2: calendar is empty, and the file has no asset_type"):
        parsed("symbol,exchange,calendar\nBTC-USD,X,\n")


def test_texts_are_checked_as_those_of_the_other_ways_in() -> None:
    with pytest.raises(InputError) as error:
        parsed(f"symbol,exchange,currency,name\nA,{'X' * 33},,\nB,X,usd,\nC,X,,{'n' * 129}\nD,X,USD1,\n")
    assert [line.split(" '")[0] for line in str(error.value).splitlines()] == [
        "line 2: exchange",
        "line 3: currency",
        "line 4: name",
    ]


def test_every_wrong_line_is_told_with_its_number() -> None:
    text = (
        "symbol,exchange,asset_type,calendar,tier,active,adv_21d\n"
        "AAPL,NASDAQ,,,,,\n"
        "aapl,NASDAQ,,,,,\n"
        "A,NYSE,stock,,,,\n"
        "B,NYSE,,MOON,,,\n"
        "C,NYSE,,,T7,,\n"
        "D,NYSE,,,,maybe,\n"
        "E,NYSE,,,,,-1\n"
        "F,NYSE,,,,,nan\n"
        "G,,,,,,\n"
        "H,NYSE\n"
        "I,NYSE,,,,,,extra\n"
        "AAPL,NYSE,,,,,\n"
    )
    with pytest.raises(InputError) as error:
        parsed(text)
    told = str(error.value).splitlines()
    assert [line.split(":")[0] for line in told] == [f"line {number}" for number in range(3, 14)]
    assert "upper case" in told[0]
    assert told[1].endswith("asset_type 'stock' is none of equity, etf, index, crypto, fx, future")
    assert "calendar 'MOON' is not known" in told[2]
    assert told[3].endswith("tier 'T7' is none of T0, T1, T2, T3")
    assert told[4].endswith("active 'maybe' is none of true, false, yes, no, 1, 0")
    assert told[5].endswith("adv_21d '-1' is no number from 0 on")
    assert told[6].endswith("adv_21d 'nan' is no number from 0 on")
    assert told[7].endswith("exchange must not be empty")
    assert told[8] == told[9].replace("12", "11") == "line 11: the number of cells is not that of the header"
    assert told[10] == "line 13: AAPL stands on line 2 already"


def test_a_quoted_line_break_does_not_shift_the_numbers() -> None:
    with pytest.raises(InputError, match=r"^line 3: name .* cannot be printed\nline 4: exchange"):
        parsed('symbol,exchange,name\nAAPL,NASDAQ,"App\nle"\nMSFT,,\n')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "missing: symbol, exchange"),
        ("symbol,price\n", "missing: exchange; unknown: 'price'"),
        ("symbol,exchange,symbol\n", "each once"),
        ("symbol,exchange\n", "no symbol"),
        ('symbol,exchange\nAAPL,"NAS\n', "line 2: unexpected end of data"),
    ],
)
def test_a_file_of_another_kind_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parsed(text)


def test_thousands_of_wrong_lines_are_told_in_short() -> None:
    with pytest.raises(InputError) as error:
        parsed("symbol,exchange\n" + "a,X\n" * 5_000)
    told = str(error.value).splitlines()
    assert (len(told), told[-1]) == (21, "and 4980 more")
