"""Lists of symbols in CSV files. Pure: everything that is wrong with a file is told at once, by line."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeVar, get_args

from cluster.clock import SystemClock
from cluster.errors import InputError
from cluster.market import calendars
from cluster.market.symbols import AssetType, Instrument, Tier, parse_symbol, require_texts

REQUIRED = ("symbol", "exchange")
OPTIONAL = ("asset_type", "calendar", "name", "currency", "tier", "active", "adv_21d", "mkt_cap")

_MOST_ERRORS = 20
_ECHO = 32
_YES_NO = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}

_Choice = TypeVar("_Choice")
_Row = Mapping[str | None, Any]
"""Cells by the name of their column; None stands for cells without a name, and for missing cells."""


class Listing(NamedTuple):
    """What a file says."""

    columns: tuple[str, ...]
    """Its header: what it says nothing of is not to be changed."""
    instruments: list[Instrument]
    """In the order of the file; what it says nothing of has the default of a new symbol."""


class _Line(NamedTuple):
    number: int
    instrument: Instrument


def default_calendar(asset_type: AssetType) -> str:
    """The calendar of an instrument that names none."""
    return "24/7" if asset_type == "crypto" else "XNYS"


def require_calendar(name: str) -> str:
    """`name`, when it is a calendar; raises `InputError`."""
    now = SystemClock().now()
    calendars.sessions(name, now, now)
    return name


def parse(lines: Iterable[str]) -> Listing:
    """The instruments of a file with a header of `REQUIRED` and any of `OPTIONAL`.

    An empty cell takes the default of `Instrument`; without a calendar crypto is 24/7 and all else XNYS.
    Raises `InputError` that names line, column and reason of the first errors of the file.
    """
    rows = csv.DictReader(lines, strict=True)
    found: dict[str, _Line] = {}
    errors: list[str] = []
    try:
        _require_header(rows.fieldnames or ())
        for row in rows:
            _take(row, rows.line_num, found, errors)
    except csv.Error as error:
        errors.append(f"line {rows.reader.line_num}: {error}")
    if errors:
        raise InputError(_told(errors))
    if not found:
        raise InputError("the file has a header, but no symbol")
    columns = tuple(str(name) for name in rows.fieldnames or ())
    return Listing(columns, [line.instrument for line in found.values()])


def _take(row: _Row, number: int, found: dict[str, _Line], errors: list[str]) -> None:
    """Put what line `number` says into `found`, or what is wrong with it into `errors`."""
    try:
        instrument = _instrument(row)
    except InputError as error:
        errors.append(f"line {number}: {error}")
        return
    first = found.setdefault(instrument.symbol, _Line(number, instrument))
    if first.number != number:
        errors.append(f"line {number}: {instrument.symbol} stands on line {first.number} already")


def _require_header(names: Iterable[str]) -> None:
    given = list(names)
    missing = [name for name in REQUIRED if name not in given]
    extra = [name for name in given if name not in REQUIRED + OPTIONAL]
    if missing or extra or len(set(given)) != len(given):
        raise InputError(
            f"line 1: expected a header with {', '.join(REQUIRED)} and any of {', '.join(OPTIONAL)}, "
            f"each once; missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(map(repr, extra)) or 'none'}"
        )


def _instrument(row: _Row) -> Instrument:
    if None in row or None in row.values():
        raise InputError("the number of cells is not that of the header")
    cells = {str(name): value.strip() for name, value in row.items() if value.strip()}
    if missing := [name for name in REQUIRED if name not in cells]:
        raise InputError(f"{', '.join(missing)} must not be empty")
    if "calendar" in row and "calendar" not in cells and "asset_type" not in row:
        raise InputError("calendar is empty, and the file has no asset_type that it could follow from")
    require_texts(cells)
    values = {name: _READ.get(name, str)(value) for name, value in cells.items()}
    values.setdefault("asset_type", "equity")
    values.setdefault("calendar", default_calendar(values["asset_type"]))
    return Instrument(**values)


def _one_of(name: str, choices: Mapping[str, _Choice]) -> Callable[[str], _Choice]:
    def read(text: str) -> _Choice:
        if text not in choices:
            raise InputError(f"{name} {text[:_ECHO]!r} is none of {', '.join(choices)}")
        return choices[text]

    return read


def _amount(name: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} {text[:_ECHO]!r} is no number from 0 on")
        return value

    return read


@cache
def _calendar(text: str) -> str:
    return require_calendar(text)


_READ: Mapping[str, Callable[[str], Any]] = {
    "symbol": parse_symbol,
    "asset_type": _one_of("asset_type", {name: name for name in get_args(AssetType)}),
    "calendar": _calendar,
    "tier": _one_of("tier", {name: name for name in get_args(Tier)}),
    "active": _one_of("active", _YES_NO),
    "adv_21d": _amount("adv_21d"),
    "mkt_cap": _amount("mkt_cap"),
}


def _told(errors: list[str]) -> str:
    more = len(errors) - _MOST_ERRORS
    return "\n".join(errors[:_MOST_ERRORS] + ([f"and {more} more"] if more > 0 else []))
