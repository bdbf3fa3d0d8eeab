"""From Yahoo's rows to raw bars: sessions and slots, splits undone, float32 noise off, errors found.

Yahoo divides its whole history by each new split. Here that is undone with the splits it tells, so that a bar
says what was traded and does not change with the next split. Pure but for a line in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from statistics import median

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog

from cluster.errors import Malformed
from cluster.market import bars, calendars
from cluster.market.adjustments import CorporateAction, shortest, split_ratios
from cluster.market.bars import PRICES, Flags, Floats
from cluster.market.calendars import ALWAYS_OPEN
from cluster.market.instants import Instants, to_instant, to_moment
from cluster.market.intervals import Interval
from cluster.providers.exchange_time import SETTLE, Placed, place_daily, place_intraday
from cluster.providers.yahoo_wire import NAME, Chart, local_date

_log = structlog.get_logger(__name__)

_SPLIT_LIKE = np.array([3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50], dtype=np.float64)
_LATE_SPLIT = timedelta(days=14)
"""A split may be told so many days late."""
_ROWS_TO_JUDGE_STEPS = 8
_AROUND = 6
"""Dividends before and after one that it is compared with."""

Places = npt.NDArray[np.intp]


def raw_bars(chart: Chart, interval: Interval, splits: Sequence[CorporateAction], now: datetime) -> pa.Table:
    """The bars of `chart` as they were traded, `BAR_SCHEMA`; `splits` are all from its first bar until now.

    Rows with a missing price and rows outside of the sessions are no bars; nor are, and that is logged, the
    few in another unit of currency. Raises `Malformed` for rows of another interval, for many in another
    unit, and for prices that a split must have got wrong.
    """
    complete = np.flatnonzero(~np.isnan(np.array([chart.columns[name] for name in PRICES])).any(axis=0))
    if not len(complete):
        return bars.empty()
    rows, placed = _placed(chart, complete, interval)
    if not len(rows):
        return bars.empty()
    values = _merged(chart, rows, placed)
    _check_steps(placed, chart, interval)
    good = _of_one_unit(chart, values)
    if not good.all():
        _log.warning("bars_rejected", provider=NAME, symbol=chart.symbol, count=int((~good).sum()),
                     first=str(placed.opens[~good][0]), first_reason="another unit of currency")  # fmt: skip
    opens, closes = placed.opens[good], placed.closes[good]
    values = {name: column[good] for name, column in values.items()}
    days = _session_dates(chart, opens)
    effective = [split for split in splits if split.ex_date <= now.astimezone(chart.zone).date()]
    _check_splits(chart, values["close"], days, effective, now)
    ratio = split_ratios(days, effective)
    open_, high, low, close = (_raw(values[name], ratio) for name in PRICES)
    volume = np.where(ratio == 1, values["volume"], np.round(values["volume"] / ratio))
    final = closes + np.timedelta64(SETTLE) <= to_instant(now)
    return bars.from_columns(
        chart.symbol, interval, opens, open_, high, low, close, volume, source=NAME, is_final=final
    )


def raw_actions(
    told: Sequence[CorporateAction], splits: Sequence[CorporateAction]
) -> tuple[list[CorporateAction], list[CorporateAction]]:
    """The actions with dividends as they were paid, and those that are not believed.

    A dividend some hundred times larger or smaller than those around it is in the wrong unit of currency.
    """
    usual = _usual_dividends(told)
    good: list[CorporateAction] = []
    doubtful: list[CorporateAction] = []
    for action in told:
        if action.kind == "split":
            good.append(action)
            continue
        ratio = split_ratios(np.array([action.ex_date], dtype="datetime64[D]"), splits)
        value = shortest(action.value * ratio, np.where(ratio == 1, 0.0, ratio * 5e-7))
        paid = replace(action, value=float(value[0]))
        (doubtful if bars.hundredfold(np.log(action.value / usual[action])) else good).append(paid)
    return good, doubtful


def _usual_dividends(told: Sequence[CorporateAction]) -> dict[CorporateAction, float]:
    """For each dividend the middle one of those around it: over decades they grow a hundredfold, too."""
    paid = sorted((action for action in told if action.kind == "dividend"), key=lambda each: each.ex_date)
    around = (paid[max(0, at - _AROUND) : at + _AROUND + 1] for at in range(len(paid)))
    return {action: median(each.value for each in near) for action, near in zip(paid, around, strict=True)}


def half_hours(quarters: pa.Table, calendar: str) -> pa.Table:
    """Bars of half an hour out of those of a quarter; one is made only when both of its parts are there."""
    if not quarters.num_rows:
        return bars.empty()
    opens = bars.opens(quarters)
    first, last = to_moment(opens[0]) - timedelta(days=1), to_moment(opens[-1]) + timedelta(days=1)
    slots = calendars.expected_opens(calendar, Interval.M30, first, last)
    due = calendars.expected_opens(calendar, Interval.M15, first, last)
    needed = np.bincount(np.searchsorted(slots, due, side="right") - 1, minlength=len(slots))
    index = np.searchsorted(slots, opens, side="right") - 1
    starts = np.flatnonzero(np.append(True, np.diff(index) > 0))
    counts = np.diff(np.append(starts, len(index)))
    whole = counts == needed[index[starts]]
    column = {name: quarters[name].to_numpy() for name in (*PRICES, "volume", "is_final")}
    ends = starts + counts - 1
    return bars.from_columns(
        quarters["symbol"][0].as_py(),
        Interval.M30,
        slots[index[starts]][whole],
        column["open"][starts][whole],
        np.maximum.reduceat(column["high"], starts)[whole],
        np.minimum.reduceat(column["low"], starts)[whole],
        column["close"][ends][whole],
        np.add.reduceat(column["volume"].astype(np.float64), starts)[whole],
        source=NAME,
        is_final=np.logical_and.reduceat(column["is_final"].astype(bool), starts)[whole],
    )


def _placed(chart: Chart, complete: Places, interval: Interval) -> tuple[list[Places], Placed]:
    """For each bar the rows that make it up, oldest first, and the bars."""
    if interval.is_daily:
        placed = place_daily(_labelled_dates(chart, complete), chart.calendar, NAME)
        return [complete[[row]] for row in placed.rows], placed
    labels = chart.ts_s[complete].astype("datetime64[us]")
    inside = place_intraday(labels, interval, chart.calendar, NAME)
    if not len(inside.rows):
        return [], inside
    slots, kept = _slots(chart.calendar, interval, inside.opens)
    opens, starts = np.unique(slots[kept], return_index=True)
    placed = place_intraday(opens, interval, chart.calendar, NAME)
    return np.split(complete[inside.rows[kept]], starts[1:]), placed


def _labelled_dates(chart: Chart, rows: Places) -> npt.NDArray[np.datetime64]:
    """Session dates of daily rows; the running day's label is the time of its last trade."""
    shifts = chart.calendar != ALWAYS_OPEN
    labels = chart.ts_s[rows].astype(np.int64).tolist()
    days = [local_date(at, chart.zone, late_is_next=shifts and at != chart.told_at_s) for at in labels]
    return np.array(days, dtype="datetime64[D]")


def _slots(calendar: str, interval: Interval, labels: Instants) -> tuple[Instants, Flags]:
    """The open of the bar that each label lies in, and whether it lies in one: not in a lunch break."""
    first, last = to_moment(labels[0]) - timedelta(days=1), to_moment(labels[-1]) + timedelta(days=1)
    due = calendars.expected_opens(calendar, interval, first, last)
    slots = due[np.searchsorted(due, labels, side="right") - 1]
    kept: Flags = labels < slots + np.timedelta64(interval.seconds, "s")
    return slots, kept


def _merged(chart: Chart, rows: Sequence[Places], placed: Placed) -> dict[str, Floats]:
    """One value a bar; a live row apart from its bar goes on where that ends."""
    if len(rows) != len(placed.opens):
        raise Malformed(f"yahoo answered rows of {chart.symbol} that belong to no bar")
    column = chart.columns
    first, last = np.array([part[0] for part in rows]), np.array([part[-1] for part in rows])
    starts = np.cumsum([0, *(len(part) for part in rows)])[:-1]
    every = np.concatenate(list(rows))
    return {
        "open": column["open"][first],
        "high": np.maximum.reduceat(column["high"][every], starts),
        "low": np.minimum.reduceat(column["low"][every], starts),
        "close": column["close"][last],
        "volume": np.add.reduceat(column["volume"][every], starts),
    }


def _session_dates(chart: Chart, opens: Instants) -> npt.NDArray[np.datetime64]:
    days = [to_moment(at).replace(tzinfo=UTC).astimezone(chart.zone).date() for at in opens]
    return np.array(days, dtype="datetime64[D]")


def _raw(adjusted: Floats, ratio: Floats) -> Floats:
    """Prices before their division by `ratio`, as the shortest decimals that a float32 can stand for."""
    narrow = adjusted.astype(np.float32)
    half_step = np.where(narrow.astype(np.float64) == adjusted, np.spacing(np.abs(narrow)) / 2, 0.0)
    return shortest(adjusted * ratio, half_step * ratio)


def _check_steps(placed: Placed, chart: Chart, interval: Interval) -> None:
    """All bars on a coarser grid are bars of a longer interval, whatever the answer calls them."""
    if len(placed.opens) < _ROWS_TO_JUDGE_STEPS:
        return
    first, last = to_moment(placed.opens[0]), to_moment(placed.opens[-1]) + timedelta(microseconds=1)
    due = calendars.expected_opens(chart.calendar, interval, first, last)
    steps = np.diff(np.searchsorted(due, placed.opens))
    coarse = np.median(steps) if interval.is_daily else np.gcd.reduce(steps)
    if coarse > 1:
        raise Malformed(
            f"yahoo was asked for {interval} bars of {chart.symbol} and answered every {coarse:g}th: "
            "bars of a longer interval"
        )


def _of_one_unit(chart: Chart, values: dict[str, Floats]) -> Flags:
    """Which bars are in the unit of most of them: pence among pounds go 100-fold, and no trade does.

    Raises `Malformed` when so many are not that nobody can say which of them are right.
    """
    close = values["close"]
    good: Flags = np.ones(len(close), dtype=bool)
    if chart.kind == "CRYPTOCURRENCY":
        return good
    with np.errstate(divide="ignore", invalid="ignore"):
        inside, steps = np.log(values["high"] / values["low"]), np.log(close[1:] / close[:-1])
    jumps = np.where(bars.hundredfold(steps), np.sign(steps), 0).astype(int)
    levels, counts = np.unique(units := np.append(0, np.cumsum(jumps)), return_counts=True)
    good = np.logical_and(units == levels[counts.argmax()], ~bars.hundredfold(inside))
    wrong = len(good) - int(good.sum())
    if 2 * wrong >= len(good) or wrong > max(1, len(good) // 10):
        at = chart.ts_s[np.flatnonzero(~good)[0]]
        raise Malformed(f"yahoo: {chart.symbol} in {chart.currency} goes 100-fold, first at {at}Z: a unit?")
    return good


def _check_splits(
    chart: Chart,
    close: Floats,
    days: npt.NDArray[np.datetime64],
    splits: Sequence[CorporateAction],
    now: datetime,
) -> None:
    """Raise `Malformed` for steps of a split. The rows are divided by splits, so they have none."""
    if not chart.can_split:
        return
    begins = np.flatnonzero(days[1:] != days[:-1])  # a split shows in the step from one session to the next
    with np.errstate(divide="ignore", invalid="ignore"):
        between = close[begins + 1] / close[begins]
    steps = dict(zip(days[begins + 1].tolist(), between.tolist(), strict=True))
    recent = (now - _LATE_SPLIT).date()
    for day, step in steps.items():
        _check_split(chart.symbol, day, step, [split.value for split in splits if split.ex_date == day])
        if day >= recent and _is_split_like(step):
            raise Malformed(
                f"yahoo: {chart.symbol} steps by {step:g} on {day} like a split that it does not tell"
            )


def _check_split(symbol: str, day: date, step: float, ratios: Sequence[float]) -> None:
    for ratio in ratios:
        if abs(np.log(ratio)) > np.log(1.4) and abs(abs(np.log(step)) - abs(np.log(ratio))) < np.log(1.15):
            raise Malformed(
                f"yahoo: {symbol} steps by {step:g} on {day}: its prices are not divided once by the split "
                f"of {ratio:g} of that day"
            )


def _is_split_like(step: float) -> bool:
    factor = max(step, 1 / step) if step > 0 else 1.0
    return bool(np.any(np.abs(factor / _SPLIT_LIKE - 1) < 0.02))
