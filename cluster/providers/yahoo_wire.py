"""Yahoo's chart documents, read; pure.

Source: query1.finance.yahoo.com/v8/finance/chart, which has no documentation, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from cluster.errors import InputError, InvalidSymbol, Malformed, OutOfHorizon
from cluster.market.adjustments import CorporateAction, Kind
from cluster.market.bars import PRICES, Floats
from cluster.market.calendars import ALWAYS_OPEN
from cluster.market.instants import Instants
from cluster.market.intervals import Interval
from cluster.providers.symbology import spelled_by_yahoo

NAME = "yahoo"

GRANULARITY = {
    Interval.M1: "1m",
    Interval.M5: "5m",
    Interval.M15: "15m",
    Interval.H1: "1h",
    Interval.D1: "1d",
}
"""Its `30m` is left out, for it may hold bars of an hour: see `yahoo_bars.half_hours`."""

_SAME = {"60m": "1h"}
_CALENDARS = {
    "XNYS": ("NMS", "NGM", "NCM", "NYQ", "ASE", "PCX", "BTS", "PNK", "SNP", "DJI", "NIM", "NYS", "CXI"),
    "XLON": ("LSE", "IOB", "FGI"),
    "XASX": ("ASX",),
    "XETR": ("GER",),
    "XFRA": ("FRA",),
    "XPAR": ("PAR",),
    "XAMS": ("AMS",),
    "XBRU": ("BRU",),
    "XMIL": ("MIL",),
    "XMAD": ("MCE",),
    "XSWX": ("EBS",),
    "XSTO": ("STO",),
    "XHEL": ("HEL",),
    "XCSE": ("CPH",),
    "XOSL": ("OSL",),
    "XTSE": ("TOR",),
    "XTKS": ("JPX",),
    "XHKG": ("HKG",),
    "BVMF": ("SAO",),
    "XKRX": ("KSC",),
    "XTAI": ("TAI",),
    "XSHG": ("SHH", "SHZ"),
    "XJSE": ("JNB",),
    "XTAE": ("TLV",),
    ALWAYS_OPEN: ("CCC",),
    "24/5": ("CCY",),
}
_CALENDAR_OF = {exchange: calendar for calendar, known in _CALENDARS.items() for exchange in known}
_LATEST_S = 100_000_000_000
"""A larger time is not in seconds."""
_LONGEST_CURRENCY = 8


@dataclass(frozen=True, slots=True)
class Chart:
    """One answer. Prices, volume and dividends are divided by all splits up to the day of the answer."""

    symbol: str
    """As we spell it."""
    kind: str
    """Yahoo's `instrumentType`: `EQUITY`, `ETF`, `INDEX`, `CRYPTOCURRENCY`, `CURRENCY`, ..."""
    currency: str
    """Unit of the prices; `GBp` is pence."""
    zone: ZoneInfo
    calendar: str
    told_at_s: int
    """Time of the last trade, seconds since 1970; the running day's row is labelled with it."""
    price: float
    """Of the last trade; NaN when it is not told."""
    ts_s: Instants
    """Labels of the rows, `datetime64[s]`; shape (N,)."""
    columns: Mapping[str, Floats]
    """`open`, `high`, `low`, `close` and `volume` as they are told, null is NaN; shape (N,) each."""
    actions: tuple[CorporateAction, ...]

    @property
    def splits(self) -> list[CorporateAction]:
        """The splits of the range that was asked for."""
        return [action for action in self.actions if action.kind == "split"]

    @property
    def can_split(self) -> bool:
        """Whether there may be splits at all."""
        return self.kind in ("EQUITY", "ETF", "MUTUALFUND")


def parse_chart(document: Any, symbol: str, interval: Interval | None) -> Chart | None:
    """The chart of `symbol`, or `None` where Yahoo says that it has none for the range.

    `interval` is the one that was asked for; `None` takes any. Raises `InvalidSymbol`, `OutOfHorizon` for a
    range that Yahoo does not keep, `InputError` for a request that it calls wrong, and `Malformed` for what
    it cannot be.
    """
    try:
        chart = document["chart"]
        if chart.get("error"):
            _refuse(chart["error"], symbol)
            return None
        (result,) = chart["result"]
        meta = result["meta"]
        _require_asked(meta, symbol, interval)
        return _chart(result, meta, symbol)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise Malformed(f"yahoo: no chart of {symbol}: {type(error).__name__}: {error}") from None


def _refuse(error: Mapping[str, Any], symbol: str) -> None:
    """Raise what Yahoo's error means; nothing when it only means that there is nothing."""
    code, text = str(error.get("code")), str(error.get("description"))
    if "Data doesn't exist" in text:
        return
    if code == "Not Found" or "symbol may be delisted" in text:
        raise InvalidSymbol(f"yahoo does not know {symbol}: {text}")
    if "must be within the last" in text:
        raise OutOfHorizon(f"yahoo does not keep {symbol} for that range: {text}")
    if code in ("Unprocessable Entity", "Bad Request"):
        raise InputError(f"yahoo calls the request for {symbol} wrong: {text}")
    raise Malformed(f"yahoo refused {symbol}: {code}: {text}")


def _require_asked(meta: Mapping[str, Any], symbol: str, interval: Interval | None) -> None:
    if str(meta["symbol"]).upper() != spelled_by_yahoo(symbol):
        raise Malformed(f"yahoo was asked for {symbol} and answered {meta['symbol']}")
    given = str(meta.get("dataGranularity"))
    if interval and _SAME.get(given, given) != GRANULARITY[interval]:
        raise Malformed(f"yahoo was asked for {interval} bars of {symbol} and answered {given}")


def _chart(result: Mapping[str, Any], meta: Mapping[str, Any], symbol: str) -> Chart:
    calendar = _CALENDAR_OF.get(str(meta["exchangeName"]))
    if calendar is None:
        raise InvalidSymbol(f"yahoo: no calendar is known for {meta['exchangeName']}, where {symbol} trades")
    zone = _zone(str(meta["exchangeTimezoneName"]))
    labels = np.array(result.get("timestamp") or [], dtype=np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < _LATEST_S:
        raise Malformed(f"yahoo answered times that are not in seconds: {labels.max()}")
    told_at_s = int(meta.get("regularMarketTime") or 0)
    if not 0 <= told_at_s < _LATEST_S:
        raise Malformed(f"yahoo answered a time that is not in seconds: {told_at_s}")
    currency = str(meta.get("currency"))
    if len(currency) > _LONGEST_CURRENCY:
        raise Malformed(f"yahoo answered a currency that is none for {symbol}")
    return Chart(
        symbol=symbol,
        kind=str(meta.get("instrumentType")),
        currency=currency,
        zone=zone,
        calendar=calendar,
        told_at_s=told_at_s,
        price=float(meta.get("regularMarketPrice") or "nan"),
        ts_s=labels.astype("datetime64[s]"),
        columns=_columns(result["indicators"]["quote"][0], len(labels)),
        actions=tuple(sorted(_actions(result.get("events") or {}, symbol, zone))),
    )


def _columns(quote: Mapping[str, Sequence[float | None]], count: int) -> dict[str, Floats]:
    columns = {}
    for name in (*PRICES, "volume"):
        given = quote.get(name) or []
        if len(given) != count:
            raise Malformed(f"yahoo answered {count} times and {len(given)} values of {name}")
        columns[name] = np.array([np.nan if value is None else value for value in given], np.float64)
    return columns


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise Malformed(f"yahoo named the time zone {name[:40]!r}, which does not exist") from None


def _actions(events: Mapping[str, Any], symbol: str, zone: ZoneInfo) -> Iterable[CorporateAction]:
    for told in (events.get("splits") or {}).values():
        yield _action(symbol, told, zone, "split", float(told["numerator"]) / float(told["denominator"]))
    for told in (events.get("dividends") or {}).values():
        yield _action(symbol, told, zone, "dividend", float(told["amount"]))


def _action(
    symbol: str, told: Mapping[str, Any], zone: ZoneInfo, kind: Kind, value: float
) -> CorporateAction:
    try:
        return CorporateAction(symbol, local_date(int(told["date"]), zone), kind, value, NAME)
    except InputError as error:
        raise Malformed(f"yahoo: {error}") from None


def local_date(at_s: int, zone: ZoneInfo, *, late_is_next: bool = False) -> date:
    """The session date that a label means.

    With `late_is_next` a full hour from 22:00 on belongs to the next date: a midnight that was computed
    with the offset of the other half of the year.
    """
    local = datetime.fromtimestamp(at_s, UTC).astimezone(zone)
    is_late = late_is_next and local.hour >= 22 and local.minute == local.second == 0
    return (local + timedelta(hours=2)).date() if is_late else local.date()
