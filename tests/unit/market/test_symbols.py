"""Spelling of canonical symbols."""

from __future__ import annotations

import pytest

from cluster.errors import InputError
from cluster.market.symbols import Instrument, parse_symbol


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
