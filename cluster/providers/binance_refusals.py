"""Which of our errors a refusal of Binance is. Pure.

Source: rest-api.md (HTTP return codes, IP limits) and errors.md of github.com/binance/binance-spot-api-docs,
as of November 2026.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from cluster.errors import (
    Banned,
    FinSightError,
    InputError,
    InvalidSymbol,
    Malformed,
    ProviderDown,
    RateLimited,
    Refused,
    Restricted,
    Unauthorized,
)
from cluster.providers.binance_wire import NAME
from cluster.providers.http import LONGEST_WAIT_S, Answer, retry_at

COOL_DOWN = timedelta(minutes=2)
"""How long to stay away after the firewall (403) has refused us; a ban lasts that long at least."""
LAST_COOL_DOWN = 2
"""After so many refusals of the firewall in a row, the next one is taken for final."""

_BANNED_UNTIL = re.compile(r"banned until (\d{13})\b")
_RESTRICTED = "restricted location"
_ABOUT_KEYS = " (check BINANCE_API_KEY, or leave it out: market data needs none)"
_THROTTLED = -1003
_BANNED = 418
_KEY = frozenset({-1002, -2014, -2015})
_DOWN = frozenset({-1000, -1001, -1006, -1007, -1008, -1016})
"""Faults of the venue's inside: unknown, disconnected, unexpected answer, time-out, busy, shutting down."""
_BAD_SYMBOL, _ILLEGAL = -1121, -1100


def throttled(answer: Answer, text: str) -> RateLimited:
    """429 and 418: until the later of what the headers say and what the text of a ban says; 418 is a ban."""
    until = retry_at(answer)
    ban = _BANNED_UNTIL.search(answer.text)
    if ban:
        # The venue's moment by the venue's clock: how long that is holds by ours, too.
        left = datetime.fromtimestamp(int(ban[1]) / 1_000, UTC) - answer.served_at
        until = max(until, answer.received_at + min(left, timedelta(seconds=LONGEST_WAIT_S)))
    return (Banned if ban or answer.status == _BANNED else RateLimited)(text, until)


def refusal_by_status(answer: Answer, forbidden: int) -> RateLimited | Refused | None:
    """The error of a refusal whose body need not be JSON; `forbidden` counts the answers 403 in a row.

    403 comes from the firewall, mostly for too many requests; when cooling down does not help, it is final.
    """
    if answer.status >= 400 and _RESTRICTED in answer.text:
        return Restricted(f"{_text(answer)} (the venue does not serve this location)")
    if answer.status == 401:
        return Unauthorized(_text(answer) + _ABOUT_KEYS)
    if answer.status != 403:
        return None
    text = f"{NAME} answered 403: its firewall refuses this address"
    if forbidden <= LAST_COOL_DOWN:
        return RateLimited(text, answer.received_at + COOL_DOWN)
    return Restricted(f"{text}, {forbidden} times in a row")


def refusal_by_code(answer: Answer, document: object, symbol: str | None) -> FinSightError | None:
    """The error that `document` stands for, whatever the status it came with; `None` when it is an answer.

    `InputError` means that the request itself was wrong (interval, parameter, span): asking again or
    elsewhere does not help.
    """
    code = document.get("code") if isinstance(document, dict) else None
    if type(code) is not int:
        return None if answer.status == 200 else Malformed(_text(answer))
    if code in _KEY:
        return Unauthorized(_text(answer) + _ABOUT_KEYS)
    if code == _THROTTLED:
        return throttled(answer, _text(answer))
    if code in _DOWN:
        return ProviderDown(_text(answer))
    if symbol is not None and (code == _BAD_SYMBOL or (code == _ILLEGAL and "'symbol'" in answer.text)):
        return InvalidSymbol(f"{NAME} does not know the symbol {symbol!r}: {_text(answer)}")
    return InputError(_text(answer))


def _text(answer: Answer) -> str:
    return f"{NAME} answered {answer.status}: {answer.excerpt()}"
