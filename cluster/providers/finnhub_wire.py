"""Finnhub's answers as bars and prices; pure.

Source: finnhub.io/docs/api and github.com/finnhubio/Finnhub-API, as of November 2026. Bodies of errors may be
plain text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeGuard

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import (
    FinSightError,
    InputError,
    InvalidSymbol,
    Malformed,
    NotEntitled,
    ProviderDown,
    RateLimited,
    Unauthorized,
)
from cluster.market import bars
from cluster.market.adjustments import CorporateAction, shortest, split_ratios
from cluster.market.instants import Instants
from cluster.market.intervals import Interval
from cluster.providers.exchange_time import (
    NEW_YORK,
    Dates,
    Placed,
    midnights,
    place_daily,
    place_intraday,
)
from cluster.providers.http import Answer
from cluster.providers.protocol import Quote

NAME = "finnhub"
CALENDAR = "XNYS"

RESOLUTION = {
    Interval.M1: "1",
    Interval.M5: "5",
    Interval.M15: "15",
    Interval.M30: "30",
    Interval.D1: "D",
}
"""Its `60` is left out: nothing tells whether its bars begin at the full hour or with the session."""

_COLUMNS = ("o", "h", "l", "c")
_MOST_SECONDS = 100_000_000_000
"""In the year 5138; a larger number is in milliseconds."""
_NO_TOKEN = ("sign up", "invalid api key", "invalid token", "missing api key")
_MINUTE = "1m"
_MOST = 10**300
_HALF_STEP = 5e-5
"""What a price that was divided by a split can be off: it has four decimals."""


def parse_candles(payload: Any, symbol: str, interval: Interval, now: datetime) -> pa.Table:
    """Bars of the regular sessions out of /stock/candle: `BAR_SCHEMA`, ascending, unique.

    `no_data` is an empty table, and no proof that nothing was traded. A row with a null among its prices is
    left out, a null volume is unknown. Daily rows carry midnight of New York. Raises `Malformed`.
    """
    if _status(payload) == "no_data":
        return bars.empty()
    stamps = _seconds(payload.get("t"))
    prices = [_floats(payload.get(name), name, len(stamps)) for name in _COLUMNS]
    volume = _floats(payload.get("v"), "v", len(stamps))
    complete = ~np.isnan(prices).any(axis=0)
    placed = _placed(stamps[complete], interval)
    columns = (values[complete][placed.rows] for values in [*prices, volume])
    return bars.from_columns(
        symbol, interval, placed.opens, *columns, source=NAME, is_final=placed.finals(now)
    )


def parse_splits(payload: Any, symbol: str) -> list[CorporateAction]:
    """The splits out of /stock/split; raises `Malformed`."""
    if not isinstance(payload, list):
        raise Malformed(f"{NAME} answered {payload!r:.60} where a list of splits was expected")
    try:
        return [
            CorporateAction(
                symbol,
                date.fromisoformat(told["date"]),
                "split",
                float(told["toFactor"]) / float(told["fromFactor"]),
                NAME,
            )
            for told in payload
        ]
    except (KeyError, TypeError, ValueError, ArithmeticError, InputError) as error:
        raise Malformed(f"{NAME}: a split of {symbol} of unknown shape: {error!r}") from None


def raw_days(adjusted: pa.Table, splits: Sequence[CorporateAction], today: date) -> pa.Table:
    """Daily bars as they were traded, out of those that are divided by all splits up to `today`.

    The volume before a split is unknown: nothing tells whether it is multiplied.
    """
    days = bars.opens(adjusted).astype("datetime64[D]")  # sessions of New York open on their date in UTC
    ratio = split_ratios(days, [split for split in splits if split.ex_date <= today])
    table = adjusted
    for name in bars.PRICES:
        raw = shortest(adjusted[name].to_numpy() * ratio, np.where(ratio == 1, 0.0, ratio * _HALF_STEP))
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(raw))
    place = table.schema.get_field_index("volume")
    kept = pc.if_else(pa.array(ratio == 1), table["volume"], pa.scalar(None, pa.float64()))
    return table.set_column(place, table.schema.field(place), kept)


def parse_quote(payload: Any, symbol: str, received_at: datetime) -> Quote:
    """The price out of /quote; an unknown symbol comes as zeros and is `InvalidSymbol`.

    An answer without a time, as older ones, is as new as `received_at` at most. Raises `Malformed`.
    """
    if not isinstance(payload, Mapping):
        raise Malformed(f"{NAME} answered {payload!r:.60} where a quote was expected")
    price, at = payload.get("c"), payload.get("t")
    if price == 0 or at == 0:
        raise InvalidSymbol(f"{NAME} does not know the symbol {symbol!r}")
    if not _is_number(price) or not price > 0 or not math.isfinite(price):
        raise Malformed(f"{NAME} answered the price {price!r:.40} for {symbol}")
    if at is None:
        return Quote(symbol, float(price), received_at, NAME)
    if not _is_number(at) or not 0 < at < _MOST_SECONDS:
        raise Malformed(f"{NAME} answered the time {at!r:.40} for {symbol}; expected seconds since 1970")
    return Quote(symbol, float(price), datetime.fromtimestamp(at, UTC), NAME)


def parse_usage(headers: Mapping[str, str]) -> dict[str, int]:
    """Calls used of the minute, out of `X-RateLimit-Limit` and `-Remaining`; empty when they are missing."""
    told = [headers.get(f"x-ratelimit-{name}", "").strip() for name in ("limit", "remaining")]
    if not all(re.fullmatch(r"\d{1,9}", number) for number in told):
        return {}
    limit, remaining = map(int, told)
    return {_MINUTE: max(0, limit - remaining)}


def refusal(answer: Answer) -> FinSightError | None:
    """What an answer that is no 200 means, and `None` for a 200.

    401 and 403 in the service's own words are `Unauthorized` for a key that is not accepted, else
    `NotEntitled`. A page of its firewall with the same status may only want fewer calls: `ProviderDown`.
    """
    if answer.status == 200:
        return None
    said = f"{NAME} answered HTTP {answer.status}: {answer.excerpt()}"
    if answer.status in (401, 403) and _is_page(answer):
        return ProviderDown(said)
    if answer.status in (401, 403):
        return _key_refused(answer) or NotEntitled(f"{said}; the key's plan does not include this")
    if answer.status in (400, 404, 405, 422):
        return InputError(said)
    return ProviderDown(said)


def throttled(answer: Answer, error: RateLimited) -> FinSightError:
    """What a 429 means: too many calls, or, going by its words, a call without a key."""
    return _key_refused(answer) or error


def _key_refused(answer: Answer) -> Unauthorized | None:
    words = answer.text.lower()
    if any(phrase in words for phrase in _NO_TOKEN):
        return Unauthorized(f"{NAME} does not accept the key: {answer.excerpt()} (check FINNHUB_API_KEY)")
    return None


def _is_page(answer: Answer) -> bool:
    return answer.body.lstrip()[:1] == b"<"


def _status(payload: Any) -> str:
    status = payload.get("s") if isinstance(payload, Mapping) else None
    if status not in ("ok", "no_data"):
        raise Malformed(f"{NAME} answered candles with the status {status!r:.40}; expected ok or no_data")
    return str(status)


def _placed(stamps: Instants, interval: Interval) -> Placed:
    if interval.is_daily:
        return place_daily(_dates(stamps), CALENDAR, NAME)
    return place_intraday(stamps, interval, CALENDAR, NAME)


def _dates(stamps: Instants) -> Dates:
    """The session dates of daily rows, which are midnights of New York."""
    # Midnight there is 04:00 or 05:00 in UTC of the same date.
    dates: Dates = stamps.astype("datetime64[D]")
    odd = stamps[midnights(dates, NEW_YORK) != stamps]
    if len(odd):
        raise Malformed(f"{NAME} answered a daily bar at {odd[0]}Z, which is not midnight in New York")
    return dates


def _seconds(values: Any) -> Instants:
    """Seconds since 1970 as instants; checked by their magnitude."""
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise Malformed(f"{NAME} answered candles whose t is no list of whole seconds")
    if not all(0 < value < _MOST_SECONDS for value in values):
        raise Malformed(
            f"{NAME} answered the times {min(values)} to {max(values)}; expected seconds since 1970"
        )
    return np.array(values, dtype="datetime64[s]").astype("datetime64[us]")


def _floats(values: Any, name: str, count: int) -> bars.Floats:
    """One column; null becomes NaN."""
    if not isinstance(values, list) or len(values) != count:
        given = len(values) if isinstance(values, list) else "no"
        raise Malformed(f"{NAME} answered {given} values of {name} for {count} candles")
    if not all(value is None or _is_number(value) for value in values):
        raise Malformed(f"{NAME} answered a {name} that is no number")
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _is_number(value: Any) -> TypeGuard[float]:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < _MOST  # a larger one is no double
    return isinstance(value, float)
