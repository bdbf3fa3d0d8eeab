"""Splits and dividends, applied to raw bars when they are read; what is stored stays as it was traded.

Before the ex-date a price is divided by a split's ratio and multiplied by (1 - dividend / last close before
it); volume is multiplied by the ratio of splits only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from math import isfinite
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import InputError, NotEnoughHistory
from cluster.market import bars, calendars
from cluster.market.instants import Instants, to_instant, to_moment

Kind = Literal["split", "dividend"]

_MOST_DECIMALS = 12
_LONGEST_CLOSURE = timedelta(days=30)
"""Within it an exchange trades again after an ex-date, whatever has happened."""


class Adjusted(StrEnum):
    """Which actions are applied."""

    NONE = "none"
    SPLITS = "splits"
    ALL = "all"


@dataclass(frozen=True, slots=True, order=True)
class CorporateAction:
    """One split or dividend of a symbol, as one source told it."""

    symbol: str
    ex_date: date
    """First session, in the exchange's local date, that trades without it."""
    kind: Kind
    value: float
    """Split: new shares for an old one. Dividend: cash a share of that day, in the unit of the prices."""
    source: str

    def __post_init__(self) -> None:
        if not (isfinite(self.value) and self.value > 0):
            raise InputError(f"a {self.kind} of {self.symbol} must be finite and above zero: {self.value}")


@dataclass(frozen=True, slots=True)
class Step:
    """What all bars that open before `at` are multiplied by."""

    at: np.datetime64
    price: float
    volume: float


def effective(
    actions: Sequence[CorporateAction], calendar: str, first_bar: datetime, as_of: datetime
) -> dict[date, datetime]:
    """Open of the first session without the action, for each ex-date that matters.

    An ex-date whose session opens at or before `first_bar` changes no bar, and one whose session opens after
    `as_of` is not in the prices of that time yet; both are left out.
    """
    days = sorted({action.ex_date for action in actions})
    chosen = [
        day for day in days if first_bar.date() - _LONGEST_CLOSURE <= day <= as_of.date() + timedelta(1)
    ]
    if not chosen:
        return {}
    start = datetime.combine(chosen[0], datetime.min.time(), UTC) - timedelta(days=1)
    known = calendars.sessions(calendar, start, max(start, as_of + timedelta(microseconds=1)))
    index = np.searchsorted(known.dates, np.array(chosen, dtype="datetime64[D]"))
    opens = {
        day: to_moment(known.opens[place])
        for day, place in zip(chosen, index.tolist(), strict=True)
        if place < len(known)
    }
    return {day: at for day, at in opens.items() if first_bar < at <= as_of}


def steps(
    actions: Sequence[CorporateAction],
    opens: Mapping[date, datetime],
    closes_before: Mapping[date, float],
    adjusted: Adjusted,
) -> list[Step]:
    """One step for each ex-date in `opens` (`effective`), ascending.

    `closes_before` has the last raw close before each of them; only dividends need it. A split and a
    dividend of one day are taken in this order: the dividend is paid on the new shares. Raises
    `NotEnoughHistory` when a close is missing, `InputError` for a dividend that is not below it.
    """
    made = []
    for day, at in sorted(opens.items()):
        of_day = [action for action in actions if action.ex_date == day]
        ratio = float(np.prod([action.value for action in of_day if action.kind == "split"]))
        paid = [action for action in of_day if action.kind == "dividend"] if adjusted == "all" else []
        kept = _kept_share(paid, ratio, closes_before.get(day)) if paid else 1.0
        made.append(Step(to_instant(at), kept / ratio, ratio))
    return [] if adjusted == "none" else made


def adjust(table: pa.Table, applied: Sequence[Step]) -> pa.Table:
    """`table` (`BAR_SCHEMA`, or more columns) of one symbol, its prices and volume adjusted by `applied`."""
    ts = bars.opens(table)
    price, volume = _factors(ts, applied, "price"), _factors(ts, applied, "volume")
    for name in (*bars.PRICES, "volume"):
        factor = pa.array(volume if name == "volume" else price)
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pc.multiply(table[name], factor))
    return table


def split_ratios(
    days: npt.NDArray[np.datetime64], splits: Sequence[CorporateAction]
) -> npt.NDArray[np.float64]:
    """For each session date the product of all splits after it."""
    ordered = sorted(splits, key=lambda split: split.ex_date)
    dates = np.array([split.ex_date for split in ordered], dtype="datetime64[D]")
    ratios = np.array([split.value for split in ordered], dtype=np.float64)
    products = np.append(np.cumprod(ratios[::-1])[::-1], 1.0)
    found: npt.NDArray[np.float64] = products[np.searchsorted(dates, days, side="right")]
    return found


def shortest(values: npt.NDArray[np.float64], tolerance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The decimals with the fewest places within `tolerance` of `values`."""
    found, open_ = values.copy(), tolerance > 0
    for places in range(_MOST_DECIMALS + 1):
        rounded = np.round(values, places)
        fits = open_ & (np.abs(rounded - values) <= tolerance) & (rounded > 0)
        found[fits], open_ = rounded[fits], open_ & ~fits
        if not open_.any():
            break
    return found


def _kept_share(paid: Sequence[CorporateAction], ratio: float, close: float | None) -> float:
    """Share of the price that is left when the dividends have gone."""
    first, amount = paid[0], sum(action.value for action in paid)
    told = f"the dividend of {amount:g} of {first.symbol} on {first.ex_date}"
    if close is None:
        raise NotEnoughHistory(f"{told} cannot be applied: no bar of the ten days before it is stored")
    if amount * ratio >= close:
        raise InputError(f"{told} is not below the close before it, {close:g}: corporate_actions is wrong")
    return 1 - amount * ratio / close


def _factors(ts: Instants, applied: Sequence[Step], name: str) -> npt.NDArray[np.float64]:
    """For each bar the product over all steps after its open."""
    ordered = sorted(applied, key=lambda step: step.at)
    at = np.array([step.at for step in ordered], dtype="datetime64[us]")
    values = np.array([getattr(step, name) for step in ordered], dtype=np.float64)
    products = np.append(np.cumprod(values[::-1])[::-1], 1.0)
    factors: npt.NDArray[np.float64] = products[np.searchsorted(at, ts, side="right")]
    return factors
