"""Alpha Vantage's answers as bars and prices; pure but for a line in the log.

Source: alphavantage.co/documentation and answers seen, as of November 2026. Every answer has the status 200;
what it is shows in its keys and, for limits and refusals, in its words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal, NoReturn
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import structlog

from cluster.errors import InvalidSymbol, Malformed, NotEntitled, RateLimited, Unauthorized
from cluster.market import bars, calendars
from cluster.market.instants import Instants, to_moment
from cluster.market.intervals import Interval
from cluster.providers.exchange_time import (
    NEW_YORK,
    midnights,
    place_daily,
    place_intraday,
    session_date,
    sessions_around,
    utc,
)
from cluster.providers.protocol import Quote
from cluster.providers.symbology import spelled_by_alpha_vantage

_log = structlog.get_logger(__name__)

NAME = "alpha_vantage"
CALENDAR = "XNYS"

Side = Literal["start", "end"]
"""Which end of a bar its label tells."""

SPELLING = {Interval.M1: "1min", Interval.M5: "5min", Interval.M15: "15min", Interval.M30: "30min"}
"""Its `60min` is left out: nothing tells whether its bars begin at the full hour or with the session."""

_ZONES = {"US/Eastern": NEW_YORK, "UTC": ZoneInfo("UTC")}
_PRE_MARKET, _POST_MARKET = np.timedelta64(4, "h"), np.timedelta64(20, "h")
_BURST_WAIT = timedelta(seconds=1.5)
_NUMBERED = re.compile(r"\d+[a-z]?\.\s+(.+)")


@dataclass(frozen=True, slots=True)
class _Rows:
    """A time series as it came, newest first or not."""

    labels: Instants
    values: Mapping[str, list[float]]
    zone: ZoneInfo


def parse_intraday(
    payload: Any, symbol: str, interval: Interval, now: datetime, *, assumed: Side = "start"
) -> pa.Table:
    """Bars of the regular sessions out of TIME_SERIES_INTRADAY: `BAR_SCHEMA`, ascending, unique.

    Labels tell the start of a bar today and told its end in 2020. Which of the two it is shows in the answer
    itself, see `label_side`, and is `assumed` (and logged) where it does not. Raises as `refuse`.
    """
    rows = _rows(payload, symbol, SPELLING[interval], now)
    labels = utc(rows.labels, rows.zone)
    side = label_side(labels) or _assumed(assumed, symbol, len(labels))
    opens = labels - np.timedelta64(interval.seconds if side == "end" else 0, "s")
    placed = place_intraday(opens, interval, CALENDAR, NAME)
    columns = (np.array(values)[placed.rows] for values in rows.values.values())
    return bars.from_columns(
        symbol, interval, placed.opens, *columns, source=NAME, is_final=placed.finals(now)
    )


def parse_daily(payload: Any, symbol: str, now: datetime) -> pa.Table:
    """Bars out of TIME_SERIES_DAILY, final when their session has closed; raises as `refuse`."""
    rows = _rows(payload, symbol, None, now)
    placed = place_daily(rows.labels.astype("datetime64[D]"), CALENDAR, NAME)
    columns = (np.array(values)[placed.rows] for values in rows.values.values())
    return bars.from_columns(
        symbol, Interval.D1, placed.opens, *columns, source=NAME, is_final=placed.finals(now)
    )


def parse_quote(payload: Any, symbol: str, now: datetime) -> Quote:
    """The price out of GLOBAL_QUOTE.

    It tells only the day: `ts` is the close of that session, or `now` when that is earlier. Raises as
    `refuse`.
    """
    fields = _named(_part(payload, "Global Quote", symbol, now))
    if not fields:  # how it answers for a symbol that it does not know
        raise InvalidSymbol(f"{NAME} has no quote of {symbol!r}")
    _expect("symbol", spelled_by_alpha_vantage(symbol), fields.get("symbol"))
    price = _number(fields.get("price"))
    if not (math.isfinite(price) and price > 0):
        raise Malformed(f"{NAME} answered the price {fields.get('price')!r} for {symbol}")
    return Quote(symbol, price, min(_close_of(fields.get("latest trading day")), now), NAME)


def label_side(labels: Instants) -> Side | None:
    """Whether `labels` (UTC) tell starts or ends of bars; `None` when no whole day among them shows it.

    A day of regular hours begins with a label at the session's open, or ends with one at its close, half days
    included. With extended hours both are ordinary labels, and 04:00 and 20:00 of New York decide. Raises
    `Malformed` when the days contradict each other.
    """
    known = sessions_around(labels, CALENDAR, NAME)
    firsts, lasts = known.opens, known.closes
    if _is_extended(labels, known):
        days: Instants = known.dates.astype("datetime64[us]")
        firsts, lasts = utc(days + _PRE_MARKET, NEW_YORK), utc(days + _POST_MARKET, NEW_YORK)
    starts, ends = np.isin(firsts, labels), np.isin(lasts, labels)
    if starts.any() and ends.any():
        raise Malformed(f"{NAME} labels bars with their starts and with their ends in one answer")
    return "start" if starts.any() else "end" if ends.any() else None


def refuse(payload: Any, symbol: str, now: datetime) -> NoReturn:
    """Raise what an answer without data means.

    `RateLimited` for too many calls a second (a text that names the daily limit, too) and a day,
    `NotEntitled` for premium functions, `Unauthorized` for a key that is not accepted, `InvalidSymbol` for a
    call that it calls invalid (all but the symbol is ours, and right), else `Malformed`. No text of the
    service goes into these errors, because some print our key.
    """
    text = " ".join(_messages(payload))
    said = text.lower()
    if "per second" in said or "sparingly" in said:
        raise RateLimited(f"{NAME}: too many calls within a second", now + _BURST_WAIT)
    if "rate limit" in said or "requests per day" in said or "calls per" in said:
        raise RateLimited(f"{NAME}: the key's calls of the day are used up", next_day(now))
    if "premium" in said:
        raise NotEntitled(f"{NAME}: the key's plan does not include this; it is a premium function")
    if "apikey" in said and ("invalid" in said or "missing" in said):
        raise Unauthorized(f"{NAME} does not accept the key; check ALPHA_VANTAGE_API_KEY")
    if isinstance(payload, Mapping) and "Error Message" in payload:
        raise InvalidSymbol(f"{NAME} has no data for {symbol!r}, or does not know it")
    raise Malformed(f"{NAME} answered something without the data of {symbol}")


def next_day(now: datetime) -> datetime:
    """When the daily quota begins anew: midnight of New York, where the service counts its days."""
    tomorrow = session_date(now, NEW_YORK) + np.timedelta64(1, "D")
    return to_moment(midnights(np.array([tomorrow]), NEW_YORK)[0])


def _assumed(side: Side, symbol: str, count: int) -> Side:
    if count:
        _log.info("bar_labels_assumed", provider=NAME, symbol=symbol, side=side, count=count)
    return side


def _is_extended(labels: Instants, known: calendars.Sessions) -> bool:
    """Whether a label lies before the open or after the close of every session."""
    if not len(known):
        return len(labels) > 0
    index = np.searchsorted(known.opens, labels, side="right") - 1
    return bool(((index < 0) | (labels > known.closes[index])).any())


def _rows(payload: Any, symbol: str, interval: str | None, now: datetime) -> _Rows:
    series = _part(payload, "Time Series", symbol, now)
    meta = _named(payload.get("Meta Data") or {})
    _expect("symbol", spelled_by_alpha_vantage(symbol), meta.get("symbol"))
    _expect("interval", interval, meta.get("interval"))
    rows = [_named(row) for row in series.values()]
    values = {name: [_number(row.get(name)) for row in rows] for name in bars.PRICES}
    values["volume"] = [_number(row["volume"]) if row.get("volume") is not None else math.nan for row in rows]
    return _Rows(_labels(list(series)), values, _zone(meta.get("time zone")))


def _part(payload: Any, name: str, symbol: str, now: datetime) -> Mapping[str, Any]:
    """The object of `payload` whose key begins with `name`: the rest of the key differs by function."""
    if isinstance(payload, Mapping):
        for key, value in payload.items():
            if key.startswith(name) and isinstance(value, Mapping):
                return value
    refuse(payload, symbol, now)


def _named(numbered: Any) -> dict[str, Any]:
    """The values by what follows the number of their key, in lower case: numbers differ by function."""
    if not isinstance(numbered, Mapping):
        raise Malformed(f"{NAME} answered {numbered!r:.60} where an object was expected")
    matches = ((_NUMBERED.fullmatch(key), value) for key, value in numbered.items())
    return {match[1].lower(): value for match, value in matches if match}


def _expect(name: str, wanted: str | None, given: Any) -> None:
    if wanted is not None and given is not None and str(given).upper() != wanted.upper():
        raise Malformed(f"{NAME} answered the {name} {given!r:.40}; asked for {wanted!r}")


def _labels(texts: list[str]) -> Instants:
    try:
        labels: Instants = np.array(texts, dtype="datetime64[us]")
    except ValueError as error:
        raise Malformed(f"{NAME} answered a time that is none: {error}") from None
    return labels


def _zone(name: Any) -> ZoneInfo:
    if name is None:
        return NEW_YORK
    if name not in _ZONES:
        raise Malformed(f"{NAME} answered times in the zone {name!r:.40}; known are {', '.join(_ZONES)}")
    return _ZONES[name]


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError, OverflowError):
        raise Malformed(f"{NAME} answered {text!r:.40} where a number was expected") from None


def _close_of(day: Any) -> datetime:
    try:
        known = place_daily(np.array([date.fromisoformat(day)], dtype="datetime64[D]"), CALENDAR, NAME)
        return to_moment(known.closes[0])
    except (TypeError, ValueError, IndexError):
        raise Malformed(f"{NAME} answered {day!r:.40} as the latest trading day") from None


def _messages(payload: Any) -> list[str]:
    names = ("Note", "Information", "Error Message")
    return [str(payload[name]) for name in names if name in payload] if isinstance(payload, Mapping) else []
