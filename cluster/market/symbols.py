"""Symbols and what FinSight knows about the instrument behind each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NewType

from cluster.errors import InputError

Symbol = NewType("Symbol", str)
"""A canonical symbol, already checked by `parse_symbol`."""

AssetType = Literal["equity", "etf", "index", "crypto", "fx", "future"]
Tier = Literal["T0", "T1", "T2", "T3"]

MAX_SYMBOL_LENGTH = 32
_SPELLING = re.compile(r"\^?[A-Z0-9][A-Z0-9.=-]*")  # no nested repeats, so matching takes linear time


def parse_symbol(text: str) -> Symbol:
    """Check the spelling of a canonical symbol, for example `AAPL`, `BRK.B`, `BTC-USD`, `EURUSD=X`, `^GSPC`.

    `:` and `/` are left out on purpose: symbols become parts of cache keys and URL paths.
    Raises `InputError` when the spelling is not canonical; no letter is folded silently.
    """
    if len(text) <= MAX_SYMBOL_LENGTH and _SPELLING.fullmatch(text):
        return Symbol(text)
    raise InputError(
        f"symbol {text[:MAX_SYMBOL_LENGTH]!r} is not valid: expected 1 to {MAX_SYMBOL_LENGTH} characters "
        f"out of A-Z 0-9 . - = in upper case, with an optional ^ in front (for example AAPL or BTC-USD)"
    )


@dataclass(frozen=True, slots=True)
class Instrument:
    """One row of the symbol universe."""

    symbol: str
    exchange: str
    """Where it trades, as a user names it: `NYSE`, `NASDAQ`, `BINANCE`."""
    asset_type: AssetType
    calendar: str
    """Name for `cluster.market.calendars`: `XNYS`, `XLON`, ..., or `24/7`."""
    name: str = ""
    currency: str = "USD"
    tier: Tier = "T2"
    active: bool = True
    adv_21d: float | None = None
    """Average daily volume of the last 21 sessions, in shares or units."""
    mkt_cap: float | None = None
    """Market capitalisation in `currency`."""

    def __post_init__(self) -> None:
        parse_symbol(self.symbol)
