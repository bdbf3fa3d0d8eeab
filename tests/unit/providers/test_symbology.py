"""One symbol of ours, in the spelling of each provider."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.errors import InvalidSymbol
from cluster.providers.symbology import (
    spelled_by_alpha_vantage,
    spelled_by_binance,
    spelled_by_finnhub,
    spelled_by_yahoo,
)

Spelling = Callable[[str], str]
YAHOO, ALPHA, FINNHUB, BINANCE = (
    spelled_by_yahoo,
    spelled_by_alpha_vantage,
    spelled_by_finnhub,
    spelled_by_binance,
)


@pytest.mark.parametrize(
    ("spelling", "ours", "theirs"),
    [
        # a class of shares
        (YAHOO, "BRK.B", "BRK-B"),
        (ALPHA, "BRK.B", "BRK-B"),
        (FINNHUB, "BRK.B", "BRK.B"),
        # an exchange is none
        (YAHOO, "VOD.L", "VOD.L"),
        (YAHOO, "BHP.AX", "BHP.AX"),
        (YAHOO, "SAP.DE", "SAP.DE"),
        # three papers of one company stay three
        (YAHOO, "GOOG", "GOOG"),
        (YAHOO, "GOOGL", "GOOGL"),
        (YAHOO, "GOOCV", "GOOCV"),
        # what has no ticker
        (YAHOO, "^GSPC", "^GSPC"),
        (YAHOO, "EURUSD=X", "EURUSD=X"),
        # coins
        (YAHOO, "BTC-USD", "BTC-USD"),
        (BINANCE, "BTCUSDT", "BTCUSDT"),
        (BINANCE, "BTC-USDT", "BTCUSDT"),
        (BINANCE, "ETH-BTC", "ETHBTC"),
        (BINANCE, "BTC-EUR", "BTCEUR"),
    ],
)
def test_a_symbol_is_spelled_as_the_provider_spells_it(spelling: Spelling, ours: str, theirs: str) -> None:
    assert spelling(ours) == theirs


@pytest.mark.parametrize(
    ("spelling", "symbol"),
    [
        (BINANCE, "BTC-USD"),  # a dollar is not a tether
        (YAHOO, "BTC-USDT"),
        (BINANCE, "btcusdt"),
        (BINANCE, "BINANCE:BTCUSDT"),
        (BINANCE, "^GSPC"),
        (BINANCE, "BTC' OR 1=1"),
        (ALPHA, "^GSPC"),
        (ALPHA, "EURUSD=X"),
        (ALPHA, "BTC-USD"),
        (FINNHUB, "BTC-USD"),
        (FINNHUB, "BINANCE:BTCUSDT"),
        (FINNHUB, "^GSPC"),
        # another exchange: its sessions are not New York's
        (FINNHUB, "VOD.L"),
        (FINNHUB, "SAP.DE"),
        (FINNHUB, "BHP.AX"),
        (FINNHUB, "BRK.B.MX"),
        (ALPHA, "VOD.L"),
        (ALPHA, "TSCO.LON"),
        (ALPHA, "SHOP.TRT"),
    ],
)
def test_what_a_provider_has_not_is_refused_without_a_call(spelling: Spelling, symbol: str) -> None:
    with pytest.raises(InvalidSymbol):
        spelling(symbol)
