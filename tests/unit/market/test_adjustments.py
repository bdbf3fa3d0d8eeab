"""Splits and dividends on read: hand-worked values, and what holds for all of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InputError, NotEnoughHistory
from cluster.market import bars, calendars
from cluster.market.adjustments import (
    Adjusted,
    CorporateAction,
    Kind,
    Step,
    adjust,
    effective,
    steps,
)
from cluster.market.instants import to_instant
from cluster.market.intervals import Interval

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def action(day: str, kind: Kind, value: float, symbol: str = "AAPL") -> CorporateAction:
    return CorporateAction(symbol, date.fromisoformat(day), kind, value, "yahoo")


def daily(first: str, closes: list[float], volumes: list[float], calendar: str = "XNYS") -> pa.Table:
    start = datetime.fromisoformat(first).replace(tzinfo=UTC)
    opens = calendars.sessions(calendar, start, start + timedelta(days=30)).opens[: len(closes)]
    return bars.from_columns(
        "AAPL", Interval.D1, opens, closes, closes, closes, closes, volumes, source="sample"
    )


def applied(
    table: pa.Table,
    actions: list[CorporateAction],
    closes: dict[str, float],
    mode: Adjusted = Adjusted.ALL,
    as_of: datetime = NOW,
) -> pa.Table:
    opens = effective(actions, "XNYS", table["ts"][0].as_py(), as_of)
    by_day = {date.fromisoformat(day): close for day, close in closes.items()}
    return adjust(table, steps(actions, opens, by_day, mode))


def test_apple_is_divided_by_four_before_the_31st_of_august_2020() -> None:
    # 27, 28 and 31 August: 500.04, 499.23, then 129.04 after four new shares for one.
    table = daily("2020-08-27", [500.04, 499.23, 129.04], [38_888_100, 46_907_500, 225_702_700])
    seen = applied(table, [action("2020-08-31", "split", 4)], {})
    assert seen["close"].to_pylist() == pytest.approx([125.01, 124.8075, 129.04], abs=1e-12)
    assert seen["volume"].to_pylist() == [155_552_400, 187_630_000, 225_702_700]


def test_nvidia_is_divided_by_four_before_the_20th_of_july_2021() -> None:
    table = daily("2021-07-19", [751.19, 186.12], [37_435_200, 43_487_400])
    seen = applied(table, [action("2021-07-20", "split", 4)], {})
    assert seen["close"].to_pylist() == [187.7975, 186.12]


def test_a_reverse_split_multiplies_prices_and_divides_volume() -> None:
    # 1:20 on 1 July 2009.
    table = daily("2009-06-30", [1.16, 23.5], [2_000_000, 150_000])
    seen = applied(table, [action("2009-07-01", "split", 0.05)], {})
    assert seen["close"].to_pylist() == pytest.approx([23.2, 23.5])
    assert seen["volume"].to_pylist() == [100_000, 150_000]


def test_a_dividend_takes_its_share_of_the_close_before_and_leaves_volume() -> None:
    # 1 - 2/100 = 0.98
    table = daily("2024-06-03", [50.0, 100.0, 99.0], [10, 20, 30])
    seen = applied(table, [action("2024-06-05", "dividend", 2)], {"2024-06-05": 100.0})
    assert seen["close"].to_pylist() == pytest.approx([49.0, 98.0, 99.0])
    assert seen["volume"].to_pylist() == [10, 20, 30]


def test_a_dividend_of_the_day_of_a_split_is_paid_on_the_new_shares() -> None:
    # 100 before; two for one, and 1 a new share: 100 / 2 * (1 - 2 / 100) = 49
    table = daily("2024-06-03", [100.0, 49.0], [10, 20])
    events = [action("2024-06-04", "dividend", 1), action("2024-06-04", "split", 2)]
    seen = applied(table, events, {"2024-06-04": 100.0})
    assert seen["close"].to_pylist() == pytest.approx([49.0, 49.0])
    assert seen["volume"].to_pylist() == [20, 20]


def test_two_splits_multiply() -> None:
    # Apple 7:1 on 9 June 2014 and 4:1 in 2020: 645.57 / 28
    table = daily("2014-06-06", [645.57, 93.70], [12_497_800, 75_415_000])
    events = [action("2020-08-31", "split", 4), action("2014-06-09", "split", 7)]
    seen = applied(table, events, {})
    assert seen["close"].to_pylist() == pytest.approx([645.57 / 28, 93.70 / 4])


def test_splits_only_leaves_dividends_and_none_leaves_all() -> None:
    table = daily("2024-06-03", [100.0, 49.0], [10, 20])
    events = [action("2024-06-04", "dividend", 1), action("2024-06-04", "split", 2)]
    assert applied(table, events, {}, Adjusted.SPLITS)["close"].to_pylist() == [50.0, 49.0]
    assert applied(table, events, {}, Adjusted.NONE).equals(table)


def test_an_event_after_the_time_of_the_question_is_not_used() -> None:
    table = daily("2020-08-27", [500.04, 499.23], [1, 1])
    events = [action("2020-08-31", "split", 4)]
    before = datetime(2020, 8, 31, 13, 29, tzinfo=UTC)  # a minute before the first session without it
    assert applied(table, events, {}, as_of=before).equals(table)
    seen = applied(table, events, {}, as_of=before + timedelta(minutes=1))
    assert seen["close"].to_pylist() == pytest.approx([125.01, 124.8075])


def test_an_event_before_the_first_bar_changes_nothing_and_needs_no_close() -> None:
    table = daily("2024-06-05", [99.0], [30])
    assert applied(table, [action("2024-06-05", "dividend", 2)], {}).equals(table)


def test_an_ex_date_without_a_session_counts_from_the_next_one() -> None:
    table = daily("2024-06-07", [100.0, 50.0], [1, 2])  # a Friday and a Monday
    seen = applied(table, [action("2024-06-08", "split", 2)], {})
    assert seen["close"].to_pylist() == [50.0, 50.0]


def test_the_session_of_sydney_begins_on_the_day_before_in_utc() -> None:
    opens = effective([action("2025-01-15", "split", 2)], "XASX", datetime(2025, 1, 10, tzinfo=UTC), NOW)
    assert opens == {date(2025, 1, 15): datetime(2025, 1, 14, 23, 0, tzinfo=UTC)}


def test_a_minute_of_the_ex_date_is_not_adjusted_and_the_last_of_the_day_before_is() -> None:
    opens = np.array(["2020-08-28T19:59", "2020-08-31T13:30"], dtype="datetime64[us]")
    ones = np.array([500.0, 125.0])
    table = bars.from_columns("AAPL", Interval.M1, opens, ones, ones, ones, ones, None, source="sample")
    seen = applied(table, [action("2020-08-31", "split", 4)], {})
    assert seen["close"].to_pylist() == [125.0, 125.0]
    assert seen["volume"].to_pylist() == [None, None]


def test_a_dividend_without_a_close_before_is_said() -> None:
    table = daily("2024-06-03", [100.0], [1])
    with pytest.raises(NotEnoughHistory, match="dividend of 2 of AAPL on 2024-06-05 cannot be applied"):
        applied(table, [action("2024-06-05", "dividend", 2)], {})


def test_a_dividend_as_large_as_the_price_is_an_error_of_the_data() -> None:
    table = daily("2024-06-03", [100.0], [1])
    with pytest.raises(InputError, match="not below the close before it, 100"):
        applied(table, [action("2024-06-05", "dividend", 100)], {"2024-06-05": 100.0})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_value_that_no_action_can_have_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="must be finite and above zero"):
        action("2024-06-05", "split", value)


FIRST = datetime(2024, 1, 1, tzinfo=UTC)
prices = st.lists(st.floats(0.01, 1e5), min_size=1, max_size=30)
moves = st.lists(st.tuples(st.integers(-5, 40), st.floats(0.01, 100), st.floats(0.01, 100)), max_size=6).map(
    lambda found: [Step(to_instant(FIRST + timedelta(days=day)), p, v) for day, p, v in found]
)


def days(closes: list[float]) -> pa.Table:
    opens = to_instant(FIRST) + np.arange(len(closes)) * np.timedelta64(86_400, "s")
    low, high = np.array(closes) * 0.9, np.array(closes) * 1.1
    return bars.from_columns(
        "BTC-USD", Interval.D1, opens, low, high, low, closes, np.full(len(closes), 7.0), source="sample"
    )


@given(prices, moves)
def test_raw_to_adjusted_and_back_is_raw(closes: list[float], moved: list[Step]) -> None:
    table = days(closes)
    inverse = [Step(step.at, 1 / step.price, 1 / step.volume) for step in moved]
    back = adjust(adjust(table, moved), inverse)
    for name in (*bars.PRICES, "volume"):
        np.testing.assert_allclose(back[name].to_numpy(), table[name].to_numpy(), rtol=1e-12)
    assert back.drop([*bars.PRICES, "volume"]).equals(table.drop([*bars.PRICES, "volume"]))


@given(prices, moves)
def test_adjusted_bars_hold_the_invariants_and_the_order_of_steps_does_not_matter(
    closes: list[float], moved: list[Step]
) -> None:
    table = days(closes)
    seen = adjust(table, moved)
    assert bars.validate(seen, NOW).good.equals(seen)
    assert seen.schema == table.schema
    np.testing.assert_allclose(
        adjust(table, moved[::-1])["close"].to_numpy(), seen["close"].to_numpy(), rtol=1e-12
    )


@given(prices, moves, st.integers(0, 30))
def test_a_part_of_the_bars_is_adjusted_as_in_the_whole(
    closes: list[float], moved: list[Step], first: int
) -> None:
    table = days(closes)
    assert adjust(table.slice(first), moved).equals(adjust(table, moved).slice(first))
