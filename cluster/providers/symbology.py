"""How each provider spells a symbol of ours; pure.

Canonical are tickers with a dot before the class of shares (`BRK.B`), pairs of coins as a venue lists them
(`BTCUSDT`, or `BTC-USDT`), pairs against a currency with a hyphen (`BTC-USD`), and Yahoo's marks for what has
no ticker (`^GSPC`, `EURUSD=X`). A dollar is not a tether: no function makes one of the other.
"""

from __future__ import annotations

import re

from cluster.errors import InvalidSymbol

_CLASS = re.compile(r"([A-Z0-9]+)\.([A-D])")
"""A class of shares; a longer suffix, or `.L`, is an exchange."""
_PAIR = re.compile(r"([A-Z0-9]{1,16})-([A-Z0-9]{2,8})")
_CURRENCIES = frozenset({"USD", "EUR", "GBP", "JPY", "AUD", "CAD", "CHF", "BRL", "TRY"})
_ON_BINANCE = frozenset({"EUR", "BRL", "TRY", "JPY"})
"""Currencies that the venue has itself; for dollars it has several coins, and none of them is one."""
_NO_STOCK = re.compile(r".*[\^=:].*|[A-Z0-9]+-(?:USD|USDT|USDC|EUR|BTC|ETH)")
_BINANCE = re.compile(r"[A-Z0-9._]{1,20}")


def spelled_by_yahoo(symbol: str) -> str:
    """`BRK.B` is `BRK-B`; the exchange in `VOD.L` stays. A pair of coins is `InvalidSymbol`: it has none."""
    pair = _PAIR.fullmatch(symbol)
    if pair and pair[2] in ("USDT", "USDC"):
        raise InvalidSymbol(f"yahoo has pairs against currencies such as BTC-USD; asked for {symbol!r}")
    return _hyphenated(symbol)


def spelled_by_alpha_vantage(symbol: str) -> str:
    """`BRK.B` is `BRK-B`; raises as `_stock`: asking would only use up a call."""
    return _hyphenated(_stock("alpha_vantage", symbol))


def spelled_by_finnhub(symbol: str) -> str:
    """As ours; raises as `_stock`."""
    return _stock("finnhub", symbol)


def spelled_by_binance(symbol: str) -> str:
    """`BTC-USDT` is `BTCUSDT`. A pair against a currency that the venue has not is `InvalidSymbol`.

    What no symbol of the venue can look like is never sent: its firewall takes it for an attack.
    """
    pair = _PAIR.fullmatch(symbol)
    if pair and (pair[2] not in _CURRENCIES or pair[2] in _ON_BINANCE):
        return pair[1] + pair[2]
    if not _BINANCE.fullmatch(symbol):
        raise InvalidSymbol(f"binance spells symbols such as BTCUSDT; asked for {symbol[:40]!r}")
    return symbol


def _stock(provider: str, symbol: str) -> str:
    """A US stock; indices, currencies, coins and shares of other exchanges are `InvalidSymbol`.

    `VOD.L` has no sessions of New York, and nothing else places what the provider answers.
    """
    if _NO_STOCK.fullmatch(symbol) or ("." in symbol and not _CLASS.fullmatch(symbol)):
        raise InvalidSymbol(f"{provider} answers US stocks; asked for {symbol!r}")
    return symbol


def _hyphenated(symbol: str) -> str:
    of_class = _CLASS.fullmatch(symbol)
    return f"{of_class[1]}-{of_class[2]}" if of_class else symbol
