"""Symbols and what FinSight knows about the instrument behind each of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NewType, get_args

from cluster.errors import InputError

Symbol = NewType("Symbol", str)
"""A canonical symbol, already checked by `parse_symbol`."""

AssetType = Literal["equity", "etf", "index", "crypto", "fx", "future"]
Tier = Literal["T0", "T1", "T2", "T3"]

MAX_SYMBOL_LENGTH = 32
MAX_LENGTHS: Mapping[str, int] = {"exchange": 32, "calendar": 32, "name": 128}
"""Of what users write, in characters."""
CURRENCY_SPELLING = "^[A-Z][A-Z0-9]{0,15}$"
"""Codes of ISO 4217, and what venues quote in: `USD`, `USDT`, `USD1`."""
_ASSET_TYPES, _TIERS = get_args(AssetType), get_args(Tier)
_ECHO = 32
_SPELLING = re.compile(r"\^?[A-Z0-9][A-Z0-9.=-]*")  # no nested repeats, so matching takes linear time


def parse_symbol(text: str) -> Symbol:
    """Check the spelling of a canonical symbol, for example `AAPL`, `BRK.B`, `BTC-USD`, `EURUSD=X`, `^GSPC`.

    `:` and `/` are left out on purpose: symbols become parts of cache keys and URL paths.
    Raises `InputError` when the spelling is not canonical; no letter is folded silently.
    """
    if is_symbol(text):
        return Symbol(text)
    raise InputError(
        f"symbol {text[:MAX_SYMBOL_LENGTH]!r} is not valid: expected 1 to {MAX_SYMBOL_LENGTH} characters "
        f"out of A-Z 0-9 . - = in upper case, with an optional ^ in front (for example AAPL or BTC-USD)"
    )


def is_symbol(text: str) -> bool:
    """Whether it is spelled as a canonical symbol."""
    return len(text) <= MAX_SYMBOL_LENGTH and _SPELLING.fullmatch(text) is not None


def require_texts(values: Mapping[str, object]) -> None:
    """Check the texts that users write, by the name of their field; what else is in `values` is left alone.

    Raises `InputError` that points at the first that is empty (but for the name), too long, cannot be
    printed, or is no currency.
    """
    for name, longest in MAX_LENGTHS.items():
        if name in values:
            require_text(name, values[name], longest, may_be_empty=name == "name")
    currency = values.get("currency", "USD")
    if not isinstance(currency, str) or not re.fullmatch(CURRENCY_SPELLING, currency):
        raise InputError(
            f"currency {str(currency)[:_ECHO]!r} is not valid: expected 1 to 16 of A-Z 0-9, a letter first",
            "#/currency",
        )


def require_text(name: str, text: object, longest: int, *, may_be_empty: bool = False) -> None:
    """Raises `InputError` unless `text` can be printed and has at most `longest` characters."""
    if not isinstance(text, str) or not (text.strip() or may_be_empty):
        raise InputError(f"{name} must not be empty", f"#/{name}")
    if len(text) > longest or not text.isprintable():
        raise InputError(
            f"{name} {text[:_ECHO]!r} is longer than {longest} characters, "
            f"or has some that cannot be printed",
            f"#/{name}",
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
        for name in ("exchange", "calendar", "currency"):
            if not getattr(self, name).strip():
                raise InputError(f"{name} must not be empty", f"#/{name}")
        _require_one_of("asset_type", self.asset_type, _ASSET_TYPES)
        _require_one_of("tier", self.tier, _TIERS)


def _require_one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} {value[:_ECHO]!r} is none of {', '.join(choices)}", f"#/{name}")
