"""Yahoo's rows, and every way in which they are not what they seem."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InputError, InvalidSymbol, Malformed, OutOfHorizon
from cluster.market import bars
from cluster.market.adjustments import CorporateAction
from cluster.market.intervals import Interval
from cluster.providers.yahoo_bars import half_hours, raw_actions, raw_bars
from cluster.providers.yahoo_wire import parse_chart
from tests.services.yahoo import (
    BITCOIN,
    LONDON,
    NEW_YORK,
    SYDNEY,
    TOKYO,
    Row,
    at,
    dividend,
    document,
    flat,
    refusal,
    split,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)
FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures" / "providers" / "yahoo"


def read(
    rows: Sequence[Row],
    interval: Interval = Interval.D1,
    meta: Mapping[str, Any] = NEW_YORK,
    *,
    splits: list[CorporateAction] | None = None,
    now: datetime = NOW,
    symbol: str = "AAPL",
) -> pa.Table:
    chart = parse_chart(document(symbol, str(interval), rows, meta), symbol, interval)
    assert chart is not None
    return raw_bars(chart, interval, splits or [], now)


def moments(table: pa.Table) -> list[str]:
    return [f"{moment:%Y-%m-%dT%H:%M}" for moment in table["ts"].to_pylist()]


def closes(table: pa.Table) -> dict[str, float]:
    return dict(zip(moments(table), table["close"].to_pylist(), strict=True))


def rejected(table: pa.Table) -> dict[str, str]:
    """Opens and reasons of the rows that were left out."""
    told = bars.rejected_of(table)
    return dict(zip(moments(told), told["reason"].to_pylist(), strict=True))


def splits(**ratios: float) -> list[CorporateAction]:
    days = [(date.fromisoformat(day[1:].replace("_", "-")), ratio) for day, ratio in ratios.items()]
    return [CorporateAction("AAPL", day, "split", ratio, "yahoo") for day, ratio in days]


# Daily labels


def test_a_daily_row_opens_with_its_session_in_winter_and_in_summer() -> None:
    table = read([flat("2025-03-07T14:30", 10), flat("2025-03-10T13:30", 11)])
    assert moments(table) == ["2025-03-07T14:30", "2025-03-10T13:30"]


def test_the_running_day_is_labelled_with_its_last_trade_and_is_not_final() -> None:
    meta = {**NEW_YORK, "regularMarketTime": at("2025-12-22T20:00")}
    now = datetime(2025, 12, 22, 20, 0, 30, tzinfo=UTC)
    table = read([flat("2025-12-19T14:30", 10), flat("2025-12-22T20:00", 11)], meta=meta, now=now)
    assert moments(table) == ["2025-12-19T14:30", "2025-12-22T14:30"]
    assert table["is_final"].to_pylist() == [True, False]


def test_the_row_of_1766437206_is_the_session_of_the_22nd_of_december() -> None:
    table = read([(1_766_437_206, 10.0, 10.0, 10.0, 10.0, 5)])
    assert moments(table) == ["2025-12-22T14:30"]


def test_a_live_row_of_sydney_is_the_session_that_began_on_the_day_before_in_utc() -> None:
    # 1642050607 is 2022-01-13 05:10:07Z, 16:10 in Sydney; its session opened at 23:00Z of the 12th.
    table = read([(1_642_050_607, 10.0, 10.0, 10.0, 10.0, 5)], meta=SYDNEY)
    assert moments(table) == ["2022-01-12T23:00"]


def test_sydney_and_london_in_summer_and_winter() -> None:
    sydney = read([flat("2025-01-14T23:00", 10), flat("2025-07-15T00:00", 11)], meta=SYDNEY)
    assert moments(sydney) == ["2025-01-14T23:00", "2025-07-15T00:00"]
    london = read([flat("2025-03-28T08:00", 10), flat("2025-03-31T07:00", 11)], meta=LONDON)
    assert moments(london) == ["2025-03-28T08:00", "2025-03-31T07:00"]


def test_a_midnight_with_the_offset_of_the_other_half_of_the_year_belongs_to_the_next_date() -> None:
    # 23:00 in New York on Monday the 3rd of November is meant as the 4th.
    assert moments(read([flat("2025-11-04T04:00", 10)])) == ["2025-11-04T14:30"]


def test_a_live_row_at_22_sharp_is_of_its_own_date() -> None:
    late = {**BITCOIN, "regularMarketTime": at("2025-06-01T22:00")}
    assert moments(read([flat("2025-06-01T22:00", 10)], meta=late)) == ["2025-06-01T00:00"]


def test_a_day_without_a_session_is_no_bar() -> None:
    assert moments(read([flat("2025-07-03T13:30", 10), flat("2025-07-04T13:30", 10)])) == ["2025-07-03T13:30"]


def test_of_two_rows_of_one_day_the_last_counts() -> None:
    table = read([flat("2025-06-02T13:30", 10), flat("2025-06-02T17:12", 11)])
    assert table["close"].to_pylist() == [11.0]


# Nulls


def test_a_row_without_a_price_is_a_hole_and_one_without_volume_is_a_bar() -> None:
    rows = [flat("2025-06-02T13:30", None), flat("2025-06-03T13:30", 10, None)]
    table = read(rows)
    assert moments(table) == ["2025-06-03T13:30"]
    assert table["volume"].to_pylist() == [None]


def test_an_empty_range_has_no_times_at_all_and_is_no_error() -> None:
    assert read([]).equals(bars.empty())


def test_columns_of_other_lengths_are_malformed() -> None:
    told = document("AAPL", "1d", [flat("2025-06-02T13:30", 10)])
    told["chart"]["result"][0]["indicators"]["quote"][0]["low"].append(9.0)
    with pytest.raises(Malformed, match="1 times and 2 values of low"):
        parse_chart(told, "AAPL", Interval.D1)


HUGE = 10**400


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("indicators", {"quote": []}),
        ("indicators", {"quote": [{"open": [HUGE]}]}),
        ("timestamp", [HUGE]),
        ("timestamp", [-1]),
        ("meta", {"regularMarketTime": HUGE}),
        ("meta", {"regularMarketPrice": HUGE}),
        ("meta", {"currency": "x" * 9}),
        ("events", {"dividends": {"1": {"date": HUGE, "amount": 1}}}),
        ("events", {"splits": {"1": {"date": 1, "numerator": HUGE, "denominator": 1}}}),
    ],
)
def test_what_no_chart_can_hold_is_malformed(part: str, value: Any) -> None:
    told = document("AAPL", "1d", [flat("2025-06-02T13:30", 10)])
    result = told["chart"]["result"][0]
    result[part] = {**result[part], **value} if part == "meta" else value
    with pytest.raises(Malformed):
        parse_chart(told, "AAPL", Interval.D1)


def test_infinity_in_the_adjusted_closes_does_no_harm() -> None:
    told = document("AAPL", "1d", [flat("2025-06-02T13:30", 10)])
    told["chart"]["result"][0]["indicators"]["adjclose"][0]["adjclose"] = [float("inf")]
    assert parse_chart(told, "AAPL", Interval.D1) is not None


# Sessions and slots


def test_the_row_at_the_close_is_no_bar() -> None:
    rows = [
        (1_689_255_000, 190.5, 190.505, 190.02, 190.06, 1_504_949),
        (1_689_255_060, 190.0401, 190.34, 189.99, 190.34, 291_161),
        (1_689_278_400, 190.54, 190.54, 190.54, 190.54, 0),
    ]
    table = read(rows, Interval.M1)
    assert moments(table) == ["2023-07-13T13:30", "2023-07-13T13:31"]
    assert table["open"].to_pylist() == [190.5, 190.0401]
    assert table["high"].to_pylist() == [190.505, 190.34]


def test_after_the_close_of_a_half_day_there_are_no_bars() -> None:
    rows = [flat(f"2025-11-28T{time}", 10) for time in ("17:59", "18:00", "19:30")]
    assert moments(read(rows, Interval.M1)) == ["2025-11-28T17:59"]


def test_before_the_open_of_london_there_are_no_bars() -> None:
    rows = [flat("2025-07-01T06:45", 10), flat("2025-07-01T07:00", 10)]
    assert moments(read(rows, Interval.M15, LONDON)) == ["2025-07-01T07:00"]


def test_in_the_lunch_break_of_tokyo_there_are_no_bars() -> None:
    rows = [flat(f"2025-12-01T{time}", 10) for time in ("02:29", "02:30", "03:30")]
    assert moments(read(rows, Interval.M1, TOKYO)) == ["2025-12-01T02:29", "2025-12-01T03:30"]


def test_a_live_row_goes_into_the_bar_it_lies_in() -> None:
    whole: Row = (at("2025-06-02T13:30"), 10.0, 12.0, 9.0, 11.0, 100)
    live: Row = (at("2025-06-02T13:33") + 7, 13.0, 13.0, 13.0, 13.0, 0)
    table = read([whole, live], Interval.M5, now=datetime(2025, 6, 2, 13, 33, 10, tzinfo=UTC))
    assert table.select([*bars.PRICES, "volume", "is_final", "aligned"]).to_pylist() == [
        {"open": 10.0, "high": 13.0, "low": 9.0, "close": 13.0, "volume": 100.0, "is_final": False,
         "aligned": True}
    ]  # fmt: skip


def test_the_last_interval_told_twice_counts_once() -> None:
    rows = [flat("2025-06-02T13:30", 10, 100), flat("2025-06-02T13:30", 10, 120)]
    assert read(rows, Interval.M5)["volume"].to_pylist() == [120.0]


def test_hours_of_new_york_begin_at_half_past_and_the_last_one_ends_with_the_session() -> None:
    now = datetime(2025, 6, 2, 20, 1, tzinfo=UTC)
    table = read([flat("2025-06-02T18:30", 10), flat("2025-06-02T19:30", 10)], Interval.H1, now=now)
    assert moments(table) == ["2025-06-02T18:30", "2025-06-02T19:30"]
    assert table["is_final"].to_pylist() == [True, True]  # closed at 20:00Z, and a minute has passed


def test_a_bar_is_final_a_minute_after_its_close() -> None:
    close = datetime(2025, 6, 2, 13, 31, tzinfo=UTC)
    for wait_s, final in ((59, False), (60, True)):
        table = read([flat("2025-06-02T13:30", 10)], Interval.M1, now=close + timedelta(seconds=wait_s))
        assert table["is_final"].to_pylist() == [final]


# Granularity


def test_another_granularity_than_asked_is_malformed() -> None:
    with pytest.raises(Malformed, match="asked for 1d bars of AAPL and answered 1wk"):
        parse_chart(document("AAPL", "1wk", []), "AAPL", Interval.D1)


def test_an_hour_may_be_called_sixty_minutes() -> None:
    assert parse_chart(document("AAPL", "60m", []), "AAPL", Interval.H1) is not None


def test_longer_bars_that_are_called_short_are_malformed() -> None:
    first = datetime(2025, 6, 2, 13, 30, tzinfo=UTC)
    rows = [flat(f"{first + timedelta(minutes=10 * n):%Y-%m-%dT%H:%M}", 10) for n in range(10)]
    with pytest.raises(Malformed, match="answered every 2th"):
        read(rows, Interval.M5)


def test_few_trades_are_not_taken_for_longer_bars() -> None:
    times = ("13:30", "13:40", "13:50", "14:00", "14:35", "15:00", "15:10", "15:20", "15:30")
    assert read([flat(f"2025-06-02T{time}", 10) for time in times], Interval.M5).num_rows == 9


def test_a_half_hour_is_made_of_both_its_quarters_only() -> None:
    def row(time: str, low: float, high: float) -> Row:
        return (at(f"2025-06-02T{time}"), low, high, low, high, 100)

    rows = [row("13:30", 10, 12), row("13:45", 9, 11), row("14:15", 10, 11), row("19:30", 9, 13)]
    table = half_hours(read([*rows, row("19:45", 8, 9)], Interval.M15), "XNYS")
    assert moments(table) == ["2025-06-02T13:30", "2025-06-02T19:30"]
    prices = [tuple(table[name].to_pylist()) for name in ("open", "high", "low", "close", "volume")]
    assert prices == [(10, 9), (12, 13), (9, 8), (11, 9), (200, 200)]
    assert half_hours(bars.empty(), "XNYS").equals(bars.empty())


# Splits, dividends and units


def test_what_yahoo_divided_by_a_split_is_told_as_it_was_traded() -> None:
    # Apple on 2 January 2020 closed at 300.35 with 33 870 100 shares; Yahoo divides by 4.
    row: Row = (
        at("2020-01-02T14:30"),
        74.0599975586,
        75.1500015259,
        73.7975006104,
        75.0875015259,
        135_480_400,
    )
    table = read([row], splits=splits(d2020_08_31=4.0))
    assert [table[name][0].as_py() for name in bars.PRICES] == [296.24, 300.6, 295.19, 300.35]
    assert table["volume"].to_pylist() == [33_870_100]


def test_all_later_splits_are_undone_together() -> None:
    # 645.57 on 6 June 2014, before 7:1 and 4:1
    table = read([flat("2014-06-06T13:30", 645.57 / 28)], splits=splits(d2014_06_09=7.0, d2020_08_31=4.0))
    assert table["close"].to_pylist() == [645.57]


def test_the_day_of_the_split_is_not_touched_and_a_split_to_come_is_not_undone() -> None:
    rows = [flat("2020-08-31T13:30", 129.04)]
    assert read(rows, splits=splits(d2020_08_31=4.0))["close"].to_pylist() == [129.04]
    assert read(rows, splits=splits(d2027_01_04=4.0))["close"].to_pylist() == [129.04]


@given(st.integers(100, 4_000_000), st.sampled_from([1, 2, 3, 4, 7, 20, 28, 0.5, 0.05, 1.5]))
def test_a_new_split_is_no_revision_of_prices_in_cents(cents: int, ratio: float) -> None:
    price = cents / 100
    table = read([flat("2014-06-06T13:30", price / ratio)], splits=splits(d2020_08_31=ratio))
    assert table["close"].to_pylist() == [price]


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (129.0399932861328, 129.04),
        (190.04010009765625, 190.0401),
        (190.5050048828125, 190.505),
        (7200.17431640625, 7200.1743),
        (1.2345, 1.2345),  # no float32: left as it is
    ],
)
def test_float32_is_told_as_the_decimal_that_was_meant(told: float, meant: float) -> None:
    document_ = document("AAPL", "1d", [flat("2025-06-02T13:30", 1.0)])
    quote = document_["chart"]["result"][0]["indicators"]["quote"][0]
    for name in bars.PRICES:
        quote[name] = [told]
    chart = parse_chart(document_, "AAPL", Interval.D1)
    assert chart is not None
    assert raw_bars(chart, Interval.D1, [], NOW)["close"].to_pylist() == [meant]


@pytest.mark.parametrize("before", [499.23, 499.23 / 16], ids=["not_divided", "divided_twice"])
def test_prices_that_were_not_divided_once_by_a_split_are_left_out_and_those_since_are_not(
    before: float,
) -> None:
    rows = [flat("2020-08-27T13:30", before), flat("2020-08-28T13:30", before), flat("2020-08-31T13:30", 129)]
    table = read(rows, splits=splits(d2020_08_31=4.0))
    assert closes(table) == {"2020-08-31T13:30": 129}
    assert rejected(table) == {
        f"2020-08-{day}T13:30": "not divided once by the split of 4 of 2020-08-31" for day in (27, 28)
    }


def test_in_minutes_the_step_from_one_session_to_the_next_is_looked_at() -> None:
    rows = [
        flat("2020-08-28T19:58", 499.23),
        flat("2020-08-28T19:59", 499.23),
        flat("2020-08-31T13:30", 129.04),
        flat("2020-08-31T13:31", 129.10),
    ]
    table = read(rows, Interval.M1, splits=splits(d2020_08_31=4.0), now=datetime(2020, 9, 1, tzinfo=UTC))
    assert moments(table) == ["2020-08-31T13:30", "2020-08-31T13:31"]


@pytest.mark.parametrize("factor", [3.0, 5.0, 1 / 3, 1 / 5])
def test_a_move_like_a_split_that_nobody_tells_is_stored_as_it_was_traded_and_logged_in_its_first_days(
    factor: float,
) -> None:
    # A split that is told late has not divided what came before it, so the rows are right in both cases.
    days = ("2025-06-02", "2025-06-03", "2025-06-04", "2025-06-05")
    prices = (60.0, 61.5, 61.5 * factor, 60.9 * factor)
    rows = [flat(f"{day}T13:30", price) for day, price in zip(days, prices, strict=True)]
    with structlog.testing.capture_logs() as logged:
        table = read(rows, now=datetime(2025, 6, 6, tzinfo=UTC))
    assert moments(table) == [f"{day}T13:30" for day in days]
    assert [(line["event"], line["day"]) for line in logged] == [("step_like_a_split", "2025-06-04")]
    with structlog.testing.capture_logs() as logged:
        assert read(rows, now=datetime(2025, 7, 6, tzinfo=UTC)).equals(table)
    assert not logged


@pytest.mark.parametrize("wrong", ["2025-07-01", "2025-07-02", "2025-07-03", "2025-07-04"])
def test_a_row_in_another_unit_is_left_out_with_its_reason_wherever_it_stands(wrong: str) -> None:
    days = ("2025-07-01", "2025-07-02", "2025-07-03", "2025-07-04")
    rows = [flat(f"{day}T07:00", 0.731 if day == wrong else 72.5) for day in days]
    table = read(rows, meta=LONDON)
    assert moments(table) == [f"{day}T07:00" for day in days if day != wrong]
    assert rejected(table) == {
        f"{wrong}T07:00": "about 100 times off the bars around it: another unit than GBp"
    }


def test_a_price_that_goes_100_fold_and_comes_back_after_days_costs_only_those_days() -> None:
    days = [f"2025-07-{day:02}" for day in (1, 2, 3, 4, 7, 8, 9, 10)]
    prices = (72.5, 72.9, 0.731, 0.733, 0.729, 72.2, 72.4, 72.8)
    table = read([flat(f"{day}T07:00", price) for day, price in zip(days, prices, strict=True)], meta=LONDON)
    assert list(closes(table).values()) == [72.5, 72.9, 72.2, 72.4, 72.8]
    assert list(rejected(table)) == [f"2025-07-{day}T07:00" for day in ("03", "04", "07")]


@pytest.mark.parametrize(("price", "kept"), [(73.0, 72.5), (0.74, 0.731), (None, 0.731)])
def test_of_two_units_with_as_many_bars_that_of_the_last_price_is_taken(
    price: float | None, kept: float
) -> None:
    rows = [flat("2025-07-01T07:00", 72.5), flat("2025-07-02T07:00", 0.731)]
    table = read(rows, meta={**LONDON, "regularMarketPrice": price})
    assert list(closes(table).values()) == [kept]
    assert len(rejected(table)) == 1


def test_a_row_with_one_price_in_another_unit_is_left_out() -> None:
    mixed: Row = (at("2025-07-02T07:00"), 72.5, 73.0, 0.725, 72.6, 5)
    rows = [flat("2025-07-01T07:00", 72.5), mixed, flat("2025-07-03T07:00", 72.5)]
    table = read(rows, meta=LONDON)
    assert moments(table) == ["2025-07-01T07:00", "2025-07-03T07:00"]
    assert list(rejected(table)) == ["2025-07-02T07:00"]


def test_a_step_of_a_hundred_on_the_day_of_such_a_split_is_the_splits_and_not_a_unit() -> None:
    # Not divided: 1 for 100 on the 3rd. What came before it is not believed, whatever has more bars.
    rows = [flat("2025-07-01T13:30", 0.5), flat("2025-07-02T13:30", 0.5), flat("2025-07-03T13:30", 50)]
    table = read(rows, splits=splits(d2025_07_03=0.01))
    assert closes(table) == {"2025-07-03T13:30": 50}
    assert set(rejected(table).values()) == {"not divided once by the split of 0.01 of 2025-07-03"}


def test_a_split_of_a_hundred_that_was_undone_leaves_no_step() -> None:
    rows = [flat("2025-07-02T13:30", 50), flat("2025-07-03T13:30", 51)]
    table = read(rows, splits=splits(d2025_07_03=0.01))
    assert list(closes(table).values()) == [0.5, 51]
    assert not rejected(table)


def test_a_coin_may_lose_all_its_worth_in_a_day() -> None:
    rows = [flat("2022-05-12T00:00", 1.0), flat("2022-05-13T00:00", 0.01)]
    assert read(rows, meta=BITCOIN).num_rows == 2


def test_dividends_are_told_as_they_were_paid() -> None:
    # Apple paid 3.29 a share on 8 May 2014; Yahoo divides by 7 and by 4.
    events = {
        "dividends": {"1": dividend("2014-05-08T13:30", 0.1175), "2": dividend("2020-11-06T14:30", 0.205)},
        "splits": {"1": split("2014-06-09T13:30", 7), "2": split("2020-08-31T13:30", 4)},
    }
    chart = parse_chart(document("AAPL", "1d", [], events=events), "AAPL", Interval.D1)
    assert chart is not None
    good, doubtful = raw_actions(chart.actions, chart.splits)
    assert [(str(action.ex_date), action.kind, action.value) for action in good] == [
        ("2014-05-08", "dividend", 3.29),
        ("2014-06-09", "split", 7.0),
        ("2020-08-31", "split", 4.0),
        ("2020-11-06", "dividend", 0.205),
    ]
    assert doubtful == []


def test_a_dividend_in_pounds_among_those_in_pence_is_not_believed() -> None:
    events = {str(n): dividend(f"20{n}-06-05T07:00", amount) for n, amount in ((21, 9), (22, 9), (23, 0.09))}
    chart = parse_chart(document("AAPL", "1d", [], LONDON, {"dividends": events}), "AAPL", Interval.D1)
    assert chart is not None
    good, doubtful = raw_actions(chart.actions, [])
    assert [action.value for action in good] == [9, 9]
    assert [action.value for action in doubtful] == [0.09]


def test_dividends_that_grow_a_hundredfold_over_decades_are_believed() -> None:
    told = [
        CorporateAction("HD", date(1990 + n // 4, 3 * (n % 4) + 1, 1), "dividend", 0.002 * 1.08**n, "yahoo")
        for n in range(120)
    ]
    assert raw_actions(told, []) == (told, [])


def test_a_split_by_nothing_is_malformed() -> None:
    events = {"splits": {"1": split("2020-08-31T13:30", 4, 0)}}
    with pytest.raises(Malformed, match="yahoo"):
        parse_chart(document("AAPL", "1d", [], events=events), "AAPL", Interval.D1)


def test_pence_stay_pence_and_are_said_to_be() -> None:
    chart = parse_chart(document("VOD.L", "1d", [], LONDON), "VOD.L", Interval.D1)
    assert chart is not None
    assert chart.currency == "GBp"


# Refusals


def test_no_data_before_the_first_trade_is_no_chart() -> None:
    text = "Data doesn't exist for startDate = 1431746344, endDate = 1437016744"
    assert parse_chart(refusal("Bad Request", text), "BYND", Interval.D1) is None


def test_an_unknown_symbol_is_told() -> None:
    text = "No data found, symbol may be delisted"
    with pytest.raises(InvalidSymbol, match="yahoo does not know NOPE: No data found"):
        parse_chart(refusal("Not Found", text), "NOPE", Interval.D1)


def test_a_range_beyond_the_horizon_is_told_as_such_and_another_wrong_one_as_our_mistake() -> None:
    text = "1m data not available for startTime=1. The requested range must be within the last 30 days."
    with pytest.raises(OutOfHorizon, match="does not keep AAPL for that range"):
        parse_chart(refusal("Unprocessable Entity", text), "AAPL", Interval.M1)
    with pytest.raises(InputError, match="calls the request for AAPL wrong"):
        parse_chart(refusal("Unprocessable Entity", "Only 8 days are allowed."), "AAPL", Interval.M1)


@pytest.mark.parametrize(
    "told", [{}, [], None, {"chart": {}}, {"chart": {"result": []}}, {"chart": {"result": [{}]}}]
)
def test_an_unknown_shape_is_malformed(told: object) -> None:
    with pytest.raises(Malformed, match="no chart of AAPL"):
        parse_chart(told, "AAPL", Interval.D1)


def test_times_in_milliseconds_are_malformed() -> None:
    told = document("AAPL", "1d", [flat("2025-06-02T13:30", 10)])
    told["chart"]["result"][0]["timestamp"] = [1_748_871_000_000]
    with pytest.raises(Malformed, match="not in seconds"):
        parse_chart(told, "AAPL", Interval.D1)


def test_another_symbol_than_asked_is_malformed() -> None:
    with pytest.raises(Malformed, match="asked for AAPL and answered MSFT"):
        parse_chart(document("MSFT", "1d", []), "AAPL", Interval.D1)


def test_an_exchange_without_a_calendar_is_said() -> None:
    meta = {**NEW_YORK, "exchangeName": "XYZ"}
    with pytest.raises(InvalidSymbol, match="no calendar is known for XYZ, where AAPL trades"):
        parse_chart(document("AAPL", "1d", [], meta), "AAPL", Interval.D1)


# Real answers


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="the recorded answers are not on this machine")
def test_recorded_answers_are_read() -> None:
    apple = _recorded("chart_aapl_1d.json", "AAPL", splits(d2020_08_31=4.0))
    assert moments(apple) == ["2020-01-02T14:30"]
    assert [apple[name][0].as_py() for name in bars.PRICES] == [296.24, 300.6, 295.19, 300.35]
    coin = _recorded("chart_btcusd_1d.json", "BTC-USD", [])
    assert moments(coin) == ["2020-01-01T00:00", "2020-01-02T00:00", "2020-01-03T00:00"]
    assert coin["volume"][0].as_py() == 18_565_664_997


def _recorded(name: str, symbol: str, known: list[CorporateAction]) -> pa.Table:
    told = json.loads((FIXTURES / name).read_text())["response"]["bodyJson"]
    chart = parse_chart(told, symbol, Interval.D1)
    assert chart is not None
    table = raw_bars(chart, Interval.D1, known, NOW)
    assert bars.validate(table, NOW).good.equals(table)
    return table


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(1, 80)), max_size=40))
def test_any_rows_are_told_as_valid_ascending_bars(rows: list[tuple[int, float]]) -> None:
    start = at("2025-06-02T13:00")
    told: list[Row] = [(start + 60 * minute, price, price, price, price, 1) for minute, price in rows]
    chart = parse_chart(
        document("AAPL", "1m", told, {**NEW_YORK, "instrumentType": "INDEX"}), "AAPL", Interval.M1
    )
    assert chart is not None
    try:
        table = raw_bars(chart, Interval.M1, [], NOW)
    except Malformed:
        return
    assert bars.validate(table, NOW).good.equals(table)
    session = [minute for minute, _ in rows if 30 <= minute < 420]
    assert np.array_equal(
        np.unique(session), (bars.opens(table).astype("datetime64[s]").astype(int) - start) // 60
    )
