"""The invariants of bars: what is kept, what is rejected, and with which reason."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import BadBars
from cluster.market import bars
from cluster.market.intervals import Interval

NOW = datetime(2024, 6, 3, 12, 0, tzinfo=UTC)
OPEN = np.datetime64("2024-06-03T10:00:00", "us")
MINUTE = np.timedelta64(60, "s")


def one_bar(**changes: object) -> pa.Table:
    """One valid one-minute bar with some values replaced."""
    row: dict[str, object] = {
        "symbol": "AAPL",
        "interval": "1m",
        "ts": datetime(2024, 6, 3, 10, 0, tzinfo=UTC),
        "open": 10.0,
        "high": 12.0,
        "low": 9.0,
        "close": 11.0,
        "volume": 100.0,
        "trade_count": None,
        "source": "test",
        "is_final": True,
        "aligned": True,
    }
    lax = pa.schema([field.with_nullable(nullable=True) for field in bars.BAR_SCHEMA])
    return pa.Table.from_pylist([row | changes], schema=lax)


def minutes(*offsets: int, symbol: str = "AAPL", close: float = 11.0) -> pa.Table:
    count = len(offsets)
    ts = OPEN + np.array(offsets) * MINUTE
    open_, high, low, close_ = (np.full(count, price) for price in (10.0, 12.0, 9.0, close))
    return bars.from_columns(symbol, Interval.M1, ts, open_, high, low, close_, None, source="test")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"volume": None},  # unknown
        {"volume": 0.0},  # no trades
        {"open": 9.0, "high": 9.0, "low": 9.0, "close": 9.0},  # a flat bar
        {"ts": datetime(2024, 6, 3, 10, 0, 17, tzinfo=UTC), "aligned": False},  # off the grid, and says so
        {"ts": NOW},  # just opened
        {"interval": "1h", "ts": datetime(2024, 5, 31, 13, 30, tzinfo=UTC)},  # New York hours start at :30
        {"interval": "1d", "ts": datetime(2024, 5, 31, 13, 30, tzinfo=UTC)},  # the session's open
    ],
)
def test_a_bar_that_holds_the_invariants_is_good(changes: dict[str, object]) -> None:
    validated = bars.validate(one_bar(**changes), NOW)
    assert (validated.good.num_rows, validated.rejected.num_rows) == (1, 0)
    assert validated.good.schema == bars.BAR_SCHEMA


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"high": 10.5}, "high is below open, close or low"),
        ({"high": 8.0}, "high is below open, close or low"),
        ({"low": 10.5}, "low is above open or close"),
        ({"close": float("nan")}, "a price is not finite or not above zero"),
        ({"high": float("inf")}, "a price is not finite or not above zero"),
        ({"low": 0.0}, "a price is not finite or not above zero"),
        ({"low": -1.0}, "a price is not finite or not above zero"),
        ({"open": None}, "a required value is missing"),
        ({"symbol": None}, "a required value is missing"),
        ({"ts": None}, "a required value is missing"),
        ({"volume": -1.0}, "volume is negative or not finite"),
        ({"volume": float("inf")}, "volume is negative or not finite"),
        ({"volume": float("nan")}, "volume is negative or not finite"),
        ({"ts": datetime(2024, 6, 3, 12, 1, tzinfo=UTC)}, "ts is in the future"),
        (
            {"ts": datetime(1899, 12, 31, 23, 59, tzinfo=UTC)},
            "ts is before 1900, which a wrong unit explains",
        ),
        ({"ts": datetime(2024, 6, 3, 10, 0, 17, tzinfo=UTC)}, "ts is off the grid of its interval"),
        ({"interval": "5m", "ts": datetime(2024, 6, 3, 10, 1, tzinfo=UTC)}, "ts is off the grid"),
        ({"interval": "1M"}, "interval is none of 1m, 5m, 15m, 30m, 1h, 1d"),
    ],
)
def test_a_bar_that_breaks_a_rule_is_rejected_with_the_reason(
    changes: dict[str, object], reason: str
) -> None:
    validated = bars.validate(one_bar(**changes), NOW)
    assert validated.good.num_rows == 0
    assert reason in validated.rejected["reason"][0].as_py()


def test_a_close_a_hundred_times_off_its_neighbours_is_rejected_and_a_price_that_stays_there_is_not() -> None:
    def closes(*values: float) -> pa.Table:
        count = len(values)
        return bars.from_columns(
            "VOD.L", Interval.M1, OPEN + np.arange(count) * MINUTE, values, values, values, values, None,
            source="test",
        )  # fmt: skip

    checked = bars.validate(closes(72.5, 72.6, 0.725, 72.4, 7_240.0, 72.5), NOW)
    assert checked.good["close"].to_pylist() == [72.5, 72.6, 72.4, 72.5]
    assert checked.rejected["close"].to_pylist() == [0.725, 7_240.0]
    assert "about 100 times off the bars around it" in checked.rejected["reason"][0].as_py()
    assert bars.validate(closes(72.5, 72.6, 0.725, 0.724), NOW).good.num_rows == 4
    assert bars.validate(closes(72.5, 3.0, 72.4), NOW).good.num_rows == 3
    apart = bars.concat([minutes(0), minutes(0, symbol="B", close=1_100.0), minutes(0, symbol="C")])
    assert "100 times" not in str(bars.validate(apart, NOW).rejected["reason"])


def test_what_was_left_out_travels_along_and_is_told_with_what_breaks_a_rule() -> None:
    three = bars.concat([minutes(0), minutes(1), minutes(2, close=13.0)])
    left = bars.reject(three, ["", "not believed", ""])
    assert bars.opens(left).tolist() == bars.opens(minutes(0, 2)).tolist()
    for told in (left, bars.between(left, NOW.replace(hour=9), NOW), pickle.loads(pickle.dumps(left))):
        checked = bars.validate(told, NOW)
        assert bars.opens(checked.good).tolist() == bars.opens(minutes(0)).tolist()
        assert checked.rejected["reason"].to_pylist() == ["high is below open, close or low", "not believed"]
        assert bars.opens(checked.rejected).tolist() == bars.opens(minutes(2, 1)).tolist()
    assert bars.rejected_of(checked.good).num_rows == 0


def test_what_is_left_out_later_travels_with_what_was_left_out_before() -> None:
    table = bars.reject(bars.concat([minutes(0), minutes(1), minutes(2)]), ["", "first", ""])
    left = bars.reject(table, ["second", ""])
    assert bars.opens(left).tolist() == bars.opens(minutes(2)).tolist()
    assert bars.rejected_of(left)["reason"].to_pylist() == ["first", "second"]


def test_every_broken_rule_is_named() -> None:
    rejected = bars.validate(one_bar(high=8.0, volume=-1.0), NOW).rejected
    assert rejected["reason"].to_pylist() == [
        "high is below open, close or low; volume is negative or not finite"
    ]


def test_bars_in_any_order_come_back_sorted() -> None:
    mixed = bars.concat([minutes(3, 1, symbol="MSFT"), minutes(2, 0)])
    good = bars.validate(mixed, NOW).good
    assert good["symbol"].to_pylist() == ["AAPL", "AAPL", "MSFT", "MSFT"]
    assert list((bars.opens(good) - OPEN) // MINUTE) == [0, 2, 1, 3]


def test_the_first_of_two_bars_with_one_key_wins() -> None:
    validated = bars.validate(bars.concat([minutes(0, close=10.5), minutes(0, 1, close=11.5)]), NOW)
    assert validated.good["close"].to_pylist() == [10.5, 11.5]
    assert validated.rejected["close"].to_pylist() == [11.5]
    assert validated.rejected["reason"].to_pylist() == ["a second bar of the same symbol, interval and ts"]


def test_no_bars_are_no_bars() -> None:
    validated = bars.validate(bars.empty(), NOW)
    assert validated.good.equals(bars.empty())
    assert validated.rejected.num_rows == 0


def test_a_wrong_column_is_refused_by_name() -> None:
    with pytest.raises(BadBars, match=r"close double \(given none\).*extra \['price'\]"):
        bars.validate(one_bar().rename_columns({"close": "price"}), NOW)


def test_an_unknown_volume_becomes_null() -> None:
    table = bars.from_columns(
        "AAPL",
        Interval.M1,
        OPEN + np.arange(2) * MINUTE,
        [1, 1],
        [1, 1],
        [1, 1],
        [1, 1],
        [np.nan, 5],
        source="t",
    )
    assert table["volume"].to_pylist() == [None, 5.0]


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(BadBars, match="high"):
        bars.from_columns(
            "A", Interval.M1, np.array([OPEN]), [1.0], [1.0, 2.0], [1.0], [1.0], None, source="t"
        )


def test_between_is_half_open() -> None:
    chosen = bars.between(
        minutes(0, 1, 2), datetime(2024, 6, 3, 10, 0, tzinfo=UTC), datetime(2024, 6, 3, 10, 2, tzinfo=UTC)
    )
    assert list((bars.opens(chosen) - OPEN) // MINUTE) == [0, 1]


@given(st.lists(st.tuples(st.sampled_from(["AAA", "BBB"]), st.integers(0, 20)), max_size=40))
def test_every_row_is_either_good_or_rejected_and_the_good_ones_are_sorted_and_unique(
    keys: list[tuple[str, int]],
) -> None:
    threerows = bars.concat(minutes(offset, symbol=symbol) for symbol, offset in keys)
    validated = bars.validate(threerows, NOW)
    kept = list(zip(validated.good["symbol"].to_pylist(), bars.opens(validated.good).tolist(), strict=True))
    assert kept == sorted(set(kept))
    assert len(kept) == len(set(keys))
    assert len(kept) + validated.rejected.num_rows == len(keys)
