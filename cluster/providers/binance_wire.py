"""What Binance's spot REST API says, as values of our own. Pure.

Source: rest-api.md and errors.md of github.com/binance/binance-spot-api-docs, as of November 2026.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import InputError, Malformed
from cluster.market import bars
from cluster.market.instants import to_instant
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument, parse_symbol
from cluster.providers.budget import Window
from cluster.providers.protocol import Quote
from cluster.providers.symbology import spelled_by_binance

NAME = "binance"
EXCHANGE = "BINANCE"

_FIELDS = 12
_LEAST_LIMIT = 100
"""Less would not allow a call of each kind; the venue has never told it."""
_OPEN, _PRICES, _VOLUME, _CLOSE, _TRADES = 0, slice(1, 5), 5, 6, 8
_US_PER_S = 1_000_000
_UNITS_US = ((10**12, 10**14, 1_000), (10**15, 10**17, 1))
"""(from, below, length in microseconds) of a unit: the years 2001 to 5138 in milliseconds, microseconds."""
_LETTER_S = {"SECOND": 1, "MINUTE": 60, "HOUR": 3_600, "DAY": 86_400}
_USED_WEIGHT = re.compile(r"x-mbx-used-weight-(\d+[smhd])")

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def parse_klines(payload: object, symbol: str, interval: Interval, now: datetime) -> pa.Table:
    """The answer of `GET /api/v3/klines` as bars; one is final when it has closed by `now`, the venue's time.

    Bars that the venue started off the grid of `interval` are kept as sent, with `aligned` false; minutes
    that it left out stay out. Raises `Malformed` for rows of another shape, times of an unknown or mixed
    unit or out of order, and bars longer than `interval`.
    """
    rows = _rows(payload)
    if not rows:
        return bars.empty()
    columns = list(zip(*rows, strict=True))
    opens, ends = _times(columns, interval)
    step_us = interval.seconds * _US_PER_S
    now_us = int(to_instant(now).astype(np.int64))
    open_, high, low, close = (_numbers(column) for column in columns[_PRICES])
    table = bars.from_columns(
        symbol,
        interval,
        opens.view("datetime64[us]"),
        open_,
        high,
        low,
        close,
        _numbers(columns[_VOLUME]),
        source=NAME,
        # A bar that a stop of the venue cut short ends early, but is not final before its time is over.
        is_final=np.maximum(ends, opens + step_us) <= now_us,
        trade_count=_integers(columns[_TRADES]),
    )
    # Around the clock every interval has a grid of its own; the one of `bars` leaves room for sessions.
    aligned = pa.array(opens % step_us == 0)
    return table.set_column(
        table.schema.get_field_index("aligned"), bars.BAR_SCHEMA.field("aligned"), aligned
    )


def parse_price(payload: object, symbol: str, served_at: datetime) -> Quote:
    """The answer of `GET /api/v3/ticker/price`; it has no time of its own, so `served_at` stands for it."""
    try:
        named, price = payload["symbol"], float(payload["price"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Malformed(f"{NAME}: {_brief(payload)} is no price of a symbol") from None
    if named != spelled_by_binance(symbol) or not (math.isfinite(price) and price > 0):
        raise Malformed(f"{NAME}: asked for the price of {symbol}, answered {price:g} of {named!r:.40}")
    return Quote(symbol=symbol, price=price, ts=served_at, source=NAME)


def parse_instruments(payload: object) -> list[Instrument]:
    """The spot symbols of `GET /api/v3/exchangeInfo`; those that do not trade now are not active.

    The currency is the quote asset as it is: USDT is not USD. A symbol outside of our spelling, such as one
    in Chinese letters, is left out.
    """
    try:
        return [
            Instrument(
                listed["symbol"],
                EXCHANGE,
                "crypto",
                "24/7",
                name=f"{listed['baseAsset']}/{listed['quoteAsset']}",
                currency=listed["quoteAsset"],
                active=listed["status"] == "TRADING",
            )
            for listed in payload["symbols"]  # type: ignore[index]
            if listed["isSpotTradingAllowed"] and _is_canonical(listed["symbol"])
        ]
    except (KeyError, TypeError) as error:
        raise Malformed(f"{NAME}: exchangeInfo of unknown shape: {error!r}") from None


def parse_limits(payload: object) -> tuple[Window, ...]:
    """The windows of request weight that `GET /api/v3/exchangeInfo` says hold for one IP address."""
    try:
        found = tuple(
            Window(limit["limit"], float(limit["intervalNum"] * _LETTER_S[limit["interval"]]))
            for limit in payload["rateLimits"]  # type: ignore[index]
            if limit["rateLimitType"] == "REQUEST_WEIGHT"
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"{NAME}: rateLimits of unknown shape: {error!r}") from None
    for window in found:
        if type(window.limit) is not int or window.limit < _LEAST_LIMIT or not window.seconds > 0:
            raise Malformed(f"{NAME}: {_brief(window)} is no limit of weight")
    return found


def parse_usage(headers: Mapping[str, str]) -> dict[str, int]:
    """Used weight by window, such as `{"1m": 37}`, out of the headers (lower-case names) of any answer."""
    found = ((_USED_WEIGHT.fullmatch(name), value) for name, value in headers.items())
    return {match[1]: int(value) for match, value in found if match and re.fullmatch(r"\d{1,9}", value)}


def _rows(payload: object) -> list[list[Any]]:
    if not isinstance(payload, list):
        raise Malformed(f"{NAME}: a list of klines was expected, not {_brief(payload)}")
    for row in payload:
        if not isinstance(row, list) or len(row) < _FIELDS:
            raise Malformed(f"{NAME}: a kline has {_FIELDS} fields, not {_brief(row)}")
    return [row[:_FIELDS] for row in payload]


def _times(columns: Sequence[Sequence[Any]], interval: Interval) -> tuple[Integers, Integers]:
    """Open and (exclusive) end of every bar in microseconds since 1970."""
    opens, closes = _integers(columns[_OPEN]), _integers(columns[_CLOSE])
    unit_us = _unit_us(np.concatenate([opens, closes]))
    opens_us: Integers = opens * unit_us
    ends_us: Integers = (closes + 1) * unit_us  # the venue names the last instant inside
    if np.any(np.diff(opens_us) <= 0):
        raise Malformed(f"{NAME}: the klines are not in the order of their open times")
    lengths_us = ends_us - opens_us
    if np.any(lengths_us <= 0) or np.any(lengths_us > interval.seconds * _US_PER_S):
        longest_s = float(np.abs(lengths_us).max()) / _US_PER_S
        raise Malformed(f"{NAME}: asked for bars of {interval}, answered one of {longest_s:.3f} s")
    return opens_us, ends_us


def _unit_us(times: Integers) -> int:
    for low, below, unit_us in _UNITS_US:
        if np.all((times >= low) & (times < below)):
            return unit_us
    raise Malformed(
        f"{NAME}: times from {times.min()} to {times.max()} are neither all milliseconds nor all microseconds"
    )


def _integers(column: Iterable[Any]) -> Integers:
    values = list(column)
    wrong = [value for value in values if type(value) is not int or abs(value) >= 2**62]
    if wrong:
        raise Malformed(f"{NAME}: a kline has {_brief(wrong[0])} where a whole number was expected")
    return np.array(values, dtype=np.int64)


def _numbers(column: Iterable[Any]) -> Floats:
    """Decimal numbers in strings, each the nearest double; null becomes NaN."""
    try:
        values: Floats = pa.array(column, pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise Malformed(
            f"{NAME}: a kline has a price or volume that is no number in a string: {error}"
        ) from None
    return values


def _is_canonical(symbol: str) -> bool:
    try:
        parse_symbol(symbol)
    except InputError:
        return False
    return True


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
