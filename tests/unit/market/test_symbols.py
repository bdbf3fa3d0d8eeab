"""Spelling of canonical symbols."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.errors import InputError
from cluster.market.symbols import Instrument, parse_symbol, require_texts


@pytest.mark.parametrize("text", ["AAPL", "BRK.B", "BTC-USD", "EURUSD=X", "^GSPC", "7203.T", "SYN0001"])
def test_a_canonical_symbol_is_accepted_as_it_is(text: str) -> None:
    assert parse_symbol(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "aapl",
        "AAPL ",
        "BRK/B",
        "BINANCE:BTCUSDT",
        "'; DROP",
        "A\n",
        "ÄÖ",
        "^",
        "-A",
        "A" * 33,
        "A%00",
        "‘A’",
    ],
)
def test_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not valid: expected"):
        parse_symbol(text)


def test_the_refusal_of_a_long_text_does_not_repeat_it() -> None:
    with pytest.raises(InputError) as refusal:
        parse_symbol("A" * 100_000 + "!")
    assert len(str(refusal.value)) < 300


def test_an_instrument_has_a_canonical_symbol() -> None:
    with pytest.raises(InputError, match="spx"):
        Instrument("spx", exchange="INDEX", asset_type="index", calendar="XNYS")


@pytest.mark.parametrize("empty", ["exchange", "calendar", "currency"])
def test_an_instrument_names_its_exchange_calendar_and_currency(empty: str) -> None:
    wrong: dict[str, Any] = {empty: " "}
    with pytest.raises(InputError, match=f"{empty} must not be empty"):
        replace(Instrument("SPX", "INDEX", "index", "XNYS"), **wrong)


@pytest.mark.parametrize("wrong", [{"asset_type": "stock"}, {"tier": "T4"}])
def test_an_instrument_is_of_a_known_kind_and_tier(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is none of"):
        Instrument(**{"symbol": "SPX", "exchange": "X", "asset_type": "index", "calendar": "XNYS", **wrong})


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("exchange", ["X" * 32, "Börse Berlin"], ["", "  ", "X" * 33, "A\tB", None]),
        ("calendar", ["24/7"], ["", "X" * 33]),
        ("name", ["", "n" * 128], ["n" * 129, "a\x00b"]),
        ("currency", ["USD", "USD1", "U"], ["", "usd", "US D", "U" * 17, "USD\n", "1"]),
    ],
)
def test_texts_are_taken_or_refused_with_the_place(name: str, right: list[str], wrong: list[object]) -> None:
    for each in right:
        require_texts({name: each})
    for refused in wrong:
        with pytest.raises(InputError) as refusal:
            require_texts({name: refused})
        assert refusal.value.pointer == f"#/{name}", refused
