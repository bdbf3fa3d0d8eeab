"""From Yahoo's rows to raw bars: sessions and slots, splits undone, float32 noise off, errors found.

Yahoo divides its whole history by each new split. Here that is undone with the splits it tells, so that a bar
says what was traded and does not change with the next split. Pure but for a line in the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from cluster.market.instants import Instants, to_moment
from cluster.market.intervals import Interval
from cluster.providers.exchange_time import Placed, place_daily, place_intraday
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

    Rows with a missing price and rows outside of the sessions are no bars. Those that must be in another unit
    of currency, or that a split got wrong, are left out with their reason and travel with the table: see
    `bars.reject`. Raises `Malformed` for rows of another interval.
    """
    complete = np.flatnonzero(~np.isnan(np.array([chart.columns[name] for name in PRICES])).any(axis=0))
    if not len(complete):
        return bars.empty()
    rows, placed = _placed(chart, complete, interval)
    if not len(rows):
        return bars.empty()
    values = _merged(chart, rows, placed)
    _check_steps(placed, chart, interval)
    days = _session_dates(chart, placed.opens)
    effective = [split for split in splits if split.ex_date <= now.astimezone(chart.zone).date()]
    reasons = _doubts(chart, values, days, effective, now)
    ratio = split_ratios(days, effective)
    open_, high, low, close = (_raw(values[name], ratio) for name in PRICES)
    volume = np.where(ratio == 1, values["volume"], np.round(values["volume"] / ratio))
    table = bars.from_columns(
        chart.symbol, interval, placed.opens, open_, high, low, close, volume,
        source=NAME, is_final=placed.finals(now),
    )  # fmt: skip
    return bars.reject(table, reasons)


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


def _doubts(
    chart: Chart,
    values: Mapping[str, Floats],
    days: npt.NDArray[np.datetime64],
    splits: Sequence[CorporateAction],
    now: datetime,
) -> list[str]:
    """For each bar why it is not believed; empty for those that are."""
    reasons = np.full(len(days), "", dtype=object)
    other = _in_another_unit(chart, values, days, splits)
    reasons[other] = f"about 100 times off the bars around it: another unit than {chart.currency}"
    if chart.can_split:
        believed = np.flatnonzero(~other)
        steps = _session_steps(values["close"][believed], days[believed])
        for day, wrong in _split_faults(steps, splits):
            reasons[(days < day) & ~other] = wrong
        _tell_late_splits(chart.symbol, steps, splits, now)
    return [str(reason) for reason in reasons]


def _in_another_unit(
    chart: Chart,
    values: Mapping[str, Floats],
    days: npt.NDArray[np.datetime64],
    splits: Sequence[CorporateAction],
) -> Flags:
    """Which bars are not in the unit of most of them: pence among pounds go 100-fold, and trades hardly ever.

    Of units with as many bars that of the last price is taken, or the newest. A step on the day of a split of
    100 is the split's, and a coin may lose all its worth in a day.
    """
    close = values["close"]
    if chart.kind == "CRYPTOCURRENCY":
        return np.zeros(len(close), dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside, steps = np.log(values["high"] / values["low"]), np.log(close[1:] / close[:-1])
    hundred = [split.ex_date for split in splits if bars.hundredfold(np.log([split.value]))[0]]
    far = bars.hundredfold(steps) & ~np.isin(days[1:], np.array(hundred, dtype="datetime64[D]"))
    units = np.append(0, np.cumsum(np.where(far, np.sign(steps), 0))).astype(int)
    levels, counts = np.unique(units, return_counts=True)
    most = levels[counts == counts.max()]
    distances = [abs(np.log(np.median(close[units == level]) / chart.price)) for level in most]
    newest = units[np.isin(units, most)][-1]
    unit = newest if np.isnan(distances).any() else most[np.argmin(distances)]
    other: Flags = (units != unit) | bars.hundredfold(inside)
    return other


def _session_steps(close: Floats, days: npt.NDArray[np.datetime64]) -> dict[date, float]:
    """The step of the price into each session from the one before: a split shows there only."""
    begins = np.flatnonzero(days[1:] != days[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        between = close[begins + 1] / close[begins]
    return dict(zip(days[begins + 1].tolist(), between.tolist(), strict=True))


def _split_faults(
    steps: Mapping[date, float], splits: Sequence[CorporateAction]
) -> Iterable[tuple[np.datetime64, str]]:
    """Days of splits into which the price steps, and why what comes before them is wrong.

    The rows are divided by splits, so they have no such steps; one of the split's ratio, up or down, means
    that they were divided twice or not at all.
    """
    for split in splits:
        size, step = abs(np.log(split.value)), abs(np.log(steps.get(split.ex_date, 1.0)))
        if size > np.log(1.4) and abs(step - size) < np.log(1.15):
            yield (
                np.datetime64(split.ex_date),
                f"not divided once by the split of {split.value:g} of {split.ex_date}",
            )


def _tell_late_splits(
    symbol: str, steps: Mapping[date, float], splits: Sequence[CorporateAction], now: datetime
) -> None:
    """Log steps like those of a split that is told late; move or split, the rows are as they were traded."""
    known = {split.ex_date for split in splits}
    recent = (now - _LATE_SPLIT).date()
    for day, step in steps.items():
        if day >= recent and day not in known and _is_split_like(step):
            _log.warning("step_like_a_split", provider=NAME, symbol=symbol, day=str(day), step=round(step, 4))


def _is_split_like(step: float) -> bool:
    factor = max(step, 1 / step) if step > 0 else 1.0
    return bool(np.any(np.abs(factor / _SPLIT_LIKE - 1) < 0.02))
