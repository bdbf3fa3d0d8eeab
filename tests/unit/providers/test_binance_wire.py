"""Binance's payloads, and every way in which its bars differ from the tidy ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import Malformed
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.providers import binance_wire
from cluster.providers.binance_wire import parse_klines
from cluster.providers.budget import Window
from cluster.providers.protocol import Quote

NOW = datetime(2026, 11, 21, tzinfo=UTC)
MINUTE_MS = 60_000
HOUR_MS = 3_600_000
FIRST_MS = 1_634_943_780_000  # 2021-10-22 23:03
FIXTURE = Path(__file__).parents[3].parent / "shared/fixtures/providers/binance/klines.json"

Row = list[object]


def row(open_ms: int, length_ms: int = MINUTE_MS, **changed: object) -> Row:
    """A bar from 10 to 11; `changed` sets fields by their names."""
    fields: dict[str, object] = {
        "open_time": open_ms,
        "open": "10.00000000",
        "high": "11.50000000",
        "low": "9.25000000",
        "close": "11.00000000",
        "volume": "3.50000000",
        "close_time": open_ms + length_ms - 1,
        "quote_volume": "36.75000000",
        "trades": 7,
        "taker_base": "1.00000000",
        "taker_quote": "10.50000000",
        "unused": "0",
    }
    return list((fields | changed).values())


def at_ms(milliseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def test_a_kline_becomes_the_bar_that_it_says() -> None:
    payload = json.loads(
        '[[1634943780000,"60685.22000000","60729.84000000","60670.90000000","60719.27000000","21.63272000",'
        '1634943839999,"1313200.01340410",617,"12.28492000","745719.41022840","0"]]'
    )
    table = parse_klines(payload, "BTCUSDT", Interval.M1, NOW)
    assert table.schema == bars.BAR_SCHEMA
    assert table.to_pylist() == [
        {
            "symbol": "BTCUSDT",
            "interval": "1m",
            "ts": datetime(2021, 10, 22, 23, 3, tzinfo=UTC),
            "open": 60685.22,
            "high": 60729.84,
            "low": 60670.9,
            "close": 60719.27,
            "volume": 21.63272,
            "trade_count": 617,
            "source": "binance",
            "is_final": True,
            "aligned": True,
        }
    ]


def test_an_answer_without_klines_is_an_empty_table() -> None:
    assert parse_klines([], "BTCUSDT", Interval.M1, NOW).equals(bars.empty())


def test_the_bar_in_progress_is_not_final() -> None:
    rows = [row(FIRST_MS), row(FIRST_MS + MINUTE_MS)]
    table = parse_klines(rows, "BTCUSDT", Interval.M1, at_ms(FIRST_MS + MINUTE_MS + 30_000))
    assert table["is_final"].to_pylist() == [True, False]


def test_a_bar_is_final_from_the_millisecond_after_its_last_one() -> None:
    rows = [row(FIRST_MS)]
    before, after = at_ms(FIRST_MS + 59_999), at_ms(FIRST_MS + 60_000)
    assert parse_klines(rows, "BTCUSDT", Interval.M1, before)["is_final"].to_pylist() == [False]
    assert parse_klines(rows, "BTCUSDT", Interval.M1, after)["is_final"].to_pylist() == [True]


def test_a_minute_without_trades_is_a_valid_bar_with_0_trades() -> None:
    flat: dict[str, Any] = dict.fromkeys(("open", "high", "low", "close"), "10.00000000")
    rows = [row(FIRST_MS, **flat, volume="0.00000000", quote_volume="0.00000000", trades=0)]
    checked = bars.validate(parse_klines(rows, "OMGBUSD", Interval.M1, NOW), NOW)
    assert checked.good.select(["close", "volume", "trade_count", "is_final"]).to_pylist() == [
        {"close": 10.0, "volume": 0.0, "trade_count": 0, "is_final": True}
    ]


def test_minutes_that_the_venue_left_out_stay_out() -> None:
    rows = [row(FIRST_MS), row(FIRST_MS + 6 * MINUTE_MS)]
    table = parse_klines(rows, "BTCUSDT", Interval.M1, NOW)
    assert [f"{ts:%H:%M}" for ts in table["ts"].to_pylist()] == ["23:03", "23:09"]


def test_a_bar_that_a_stop_of_the_venue_cut_to_15_seconds_is_kept_as_sent() -> None:
    rows = [row(1_515_034_800_000, close_time=1_515_034_814_838), row(1_515_042_000_000, HOUR_MS)]
    table = parse_klines(rows, "BTCUSDT", Interval.H1, NOW)
    assert table["ts"].to_pylist() == [
        datetime(2018, 1, 4, 3, 0, tzinfo=UTC),
        datetime(2018, 1, 4, 5, 0, tzinfo=UTC),
    ]
    assert table["aligned"].to_pylist() == [True, True]


def test_a_bar_that_was_cut_short_is_not_final_before_its_hour_is_over() -> None:
    rows = [row(1_515_034_800_000, close_time=1_515_034_814_838)]
    for now, final in (("03:59:59", False), ("04:00:00", True)):
        table = parse_klines(rows, "BTCUSDT", Interval.H1, datetime.fromisoformat(f"2018-01-04T{now}+00:00"))
        assert table["is_final"].to_pylist() == [final]


def test_bars_off_the_grid_are_valid_and_marked_until_the_venue_is_back_on_it() -> None:
    opens_ms = [1_518_048_000_000, 1_518_168_494_789, 1_518_319_694_789, 1_518_321_600_000]
    rows = [
        row(opens_ms[0], close_time=1_518_049_694_788),
        *(row(open_ms, HOUR_MS) for open_ms in opens_ms[1:3]),
    ]
    rows[2][6] = 1_518_321_599_999
    checked = bars.validate(
        parse_klines([*rows, row(opens_ms[3], HOUR_MS)], "BTCUSDT", Interval.H1, NOW), NOW
    )
    assert checked.rejected.num_rows == 0
    assert checked.good["aligned"].to_pylist() == [True, False, False, True]
    assert checked.good["ts"].to_pylist()[1] == datetime(2018, 2, 9, 9, 28, 14, 789_000, tzinfo=UTC)


@pytest.mark.parametrize(("interval", "minute"), [(Interval.H1, 15), (Interval.D1, 1), (Interval.M5, 1)])
def test_around_the_clock_a_bar_is_aligned_only_on_the_grid_of_its_own_interval(
    interval: Interval, minute: int
) -> None:
    day_ms = 1_634_860_800_000  # 2021-10-22 00:00
    rows = [row(day_ms, 60_000), row(day_ms + minute * MINUTE_MS, 60_000)]
    assert parse_klines(rows, "BTCUSDT", interval, NOW)["aligned"].to_pylist() == [True, False]


def test_a_daily_bar_opens_at_midnight_in_utc() -> None:
    table = parse_klines([row(1_634_860_800_000, 24 * HOUR_MS)], "BTCUSDT", Interval.D1, NOW)
    assert table["ts"].to_pylist() == [datetime(2021, 10, 22, tzinfo=UTC)]
    assert table["is_final"].to_pylist() == [True]


def test_microseconds_tell_the_same_bars_as_milliseconds() -> None:
    in_ms = [row(FIRST_MS + n * MINUTE_MS) for n in range(3)]
    in_us = [[of_ms[0] * 1_000, *of_ms[1:6], of_ms[6] * 1_000 + 999, *of_ms[7:]] for of_ms in in_ms]  # type: ignore[operator]
    now = at_ms(FIRST_MS + 3 * MINUTE_MS - 1)
    assert parse_klines(in_us, "BTCUSDT", Interval.M1, now).equals(
        parse_klines(in_ms, "BTCUSDT", Interval.M1, now)
    )


def test_a_mix_of_milliseconds_and_microseconds_is_refused() -> None:
    rows = [row(FIRST_MS), row(FIRST_MS * 1_000 + 60_000_000, close_time=FIRST_MS * 1_000 + 119_999_999)]
    with pytest.raises(Malformed, match="neither all milliseconds nor all microseconds"):
        parse_klines(rows, "BTCUSDT", Interval.M1, NOW)


@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_seconds_and_nanoseconds_are_refused(scale: float) -> None:
    rows = [row(int(FIRST_MS * scale), close_time=int((FIRST_MS + 59_999) * scale))]
    with pytest.raises(Malformed, match="neither all milliseconds nor all microseconds"):
        parse_klines(rows, "BTCUSDT", Interval.M1, NOW)


def test_months_are_not_taken_for_minutes() -> None:
    september_ms = 1_630_454_400_000
    rows = [row(september_ms, 30 * 24 * HOUR_MS)]
    with pytest.raises(Malformed, match=r"asked for bars of 1m, answered one of 2592000\.000 s"):
        parse_klines(rows, "BTCUSDT", Interval.M1, NOW)


def test_a_bar_that_ends_before_it_opens_is_refused() -> None:
    with pytest.raises(Malformed, match="asked for bars of 1m"):
        parse_klines([row(FIRST_MS, close_time=FIRST_MS - 1)], "BTCUSDT", Interval.M1, NOW)


@pytest.mark.parametrize("second_ms", [FIRST_MS, FIRST_MS - MINUTE_MS])
def test_klines_out_of_order_or_twice_are_refused(second_ms: int) -> None:
    with pytest.raises(Malformed, match="not in the order of their open times"):
        parse_klines([row(FIRST_MS), row(second_ms)], "BTCUSDT", Interval.M1, NOW)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "a list of klines was expected, not {}"),
        (None, "a list of klines was expected, not None"),
        (["<html>"], "a kline has 12 fields, not '<html>'"),
        ([row(FIRST_MS)[:11]], "a kline has 12 fields"),
        ([row(FIRST_MS, open_time=str(FIRST_MS))], "'1634943780000' where a whole number was expected"),
        ([row(FIRST_MS, open_time=float(FIRST_MS))], "1634943780000.0 where a whole number was expected"),
        ([row(FIRST_MS, open_time=2**70)], "where a whole number was expected"),
        ([row(FIRST_MS, close_time=None)], "None where a whole number was expected"),
        ([row(FIRST_MS, trades=True)], "True where a whole number was expected"),
        ([row(FIRST_MS, close=11.0)], "no number in a string"),
        ([row(FIRST_MS, close="1_1")], "no number in a string"),
        ([row(FIRST_MS, volume="many")], "no number in a string"),
    ],
)
def test_a_payload_of_another_shape_is_malformed(payload: object, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parse_klines(payload, "BTCUSDT", Interval.M1, NOW)


def test_a_field_that_the_venue_adds_one_day_does_no_harm() -> None:
    longer = [*row(FIRST_MS), "new"]
    assert parse_klines([longer], "BTCUSDT", Interval.M1, NOW).equals(
        parse_klines([row(FIRST_MS)], "BTCUSDT", Interval.M1, NOW)
    )


def test_a_null_volume_is_unknown_and_a_null_price_costs_only_its_own_bar() -> None:
    rows = [row(FIRST_MS, volume=None), row(FIRST_MS + MINUTE_MS, close=None)]
    checked = bars.validate(parse_klines(rows, "BTCUSDT", Interval.M1, NOW), NOW)
    assert checked.good["volume"].to_pylist() == [None]
    assert "a price is not finite" in checked.rejected["reason"][0].as_py()


@settings(deadline=None)
@given(st.integers(1, 10**14))
def test_every_decimal_becomes_the_double_next_to_it(hundred_millionths: int) -> None:
    text = f"{hundred_millionths // 10**8}.{hundred_millionths % 10**8:08d}"
    rows = [row(FIRST_MS, open=text, high=text, low=text, close=text)]
    assert parse_klines(rows, "BTCUSDT", Interval.M1, NOW)["close"][0].as_py() == float(text)


@settings(deadline=None)
@given(st.sets(st.integers(0, 5_000), min_size=1), st.integers(0, 5_000))
def test_exactly_the_minutes_that_were_sent_come_out_and_the_past_ones_are_final(
    minutes: set[int], now_minute: int
) -> None:
    sent = sorted(minutes)
    rows = [row(FIRST_MS + minute * MINUTE_MS) for minute in sent]
    table = parse_klines(rows, "BTCUSDT", Interval.M1, at_ms(FIRST_MS + now_minute * MINUTE_MS))
    opens_ms = bars.opens(table).astype("datetime64[ms]").astype(np.int64)
    assert opens_ms.tolist() == [FIRST_MS + minute * MINUTE_MS for minute in sent]
    assert table["is_final"].to_pylist() == [minute < now_minute for minute in sent]


@pytest.mark.skipif(not FIXTURE.exists(), reason=f"no recorded answers in {FIXTURE.parent}")
def test_a_recorded_answer_is_read_without_a_loss() -> None:
    payload = json.loads(FIXTURE.read_text())
    checked = bars.validate(parse_klines(payload, "BTCUSDT", Interval.M1, NOW), NOW)
    assert checked.good.num_rows == len(payload)
    assert [f"{close:.8f}" for close in checked.good["close"].to_pylist()] == [sent[4] for sent in payload]


EXCHANGE_INFO = {
    "timezone": "UTC",
    "serverTime": 1_565_246_363_776,
    "rateLimits": [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
        {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300000},
    ],
    "symbols": [
        {
            "symbol": symbol,
            "status": status,
            "baseAsset": base,
            "quoteAsset": quote,
            "isSpotTradingAllowed": spot,
        }
        for symbol, status, base, quote, spot in (
            ("BTCUSDT", "TRADING", "BTC", "USDT", True),
            ("OMGBUSD", "BREAK", "OMG", "BUSD", True),
            ("BTCNGN", "TRADING", "BTC", "NGN", False),
            ("币安人生USDT", "TRADING", "币安人生", "USDT", True),
        )
    ],
}


def test_the_instruments_are_the_spot_symbols_that_we_can_spell() -> None:
    found = binance_wire.parse_instruments(EXCHANGE_INFO)
    assert [(one.symbol, one.name, one.currency, one.active) for one in found] == [
        ("BTCUSDT", "BTC/USDT", "USDT", True),
        ("OMGBUSD", "OMG/BUSD", "BUSD", False),
    ]
    assert {(one.exchange, one.asset_type, one.calendar) for one in found} == {("BINANCE", "crypto", "24/7")}


def test_the_limits_are_the_windows_of_request_weight_and_no_other() -> None:
    assert binance_wire.parse_limits(EXCHANGE_INFO) == (Window(6_000, 60.0),)


@pytest.mark.parametrize("payload", [[], {}, {"symbols": [{"symbol": "BTCUSDT"}], "rateLimits": [{}]}])
def test_exchange_information_of_another_shape_is_malformed(payload: object) -> None:
    with pytest.raises(Malformed, match="exchangeInfo of unknown shape"):
        binance_wire.parse_instruments(payload)
    with pytest.raises(Malformed, match="rateLimits of unknown shape"):
        binance_wire.parse_limits(payload)


@pytest.mark.parametrize("limit", [0, -1, 99, "6000", 6000.5, True])
def test_a_limit_that_would_stop_all_calls_is_malformed(limit: object) -> None:
    told = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": limit}
    with pytest.raises(Malformed, match="is no limit of weight"):
        binance_wire.parse_limits({"rateLimits": [told]})


@pytest.mark.parametrize("place", [0, 1, 5, 6, 8])
def test_a_number_that_nothing_can_hold_is_malformed(place: int) -> None:
    row: list[object] = [1717408800000, "1", "1", "1", "1", "1", 1717408859999, "1", 1, "1", "1", "0"]
    assert binance_wire.parse_klines([row], "BTCUSDT", Interval.M1, NOW).num_rows == 1
    row[place] = 10**400
    with pytest.raises(Malformed):
        binance_wire.parse_klines([row], "BTCUSDT", Interval.M1, NOW)
    with pytest.raises(Malformed):
        binance_wire.parse_price({"symbol": "BTCUSDT", "price": 10**400}, "BTCUSDT", NOW)
    window = {"rateLimitType": "REQUEST_WEIGHT", "interval": "DAY", "intervalNum": 10**400, "limit": 6000}
    with pytest.raises(Malformed):
        binance_wire.parse_limits({"rateLimits": [window]})


def test_a_price_has_the_time_of_the_answer_because_the_venue_gives_none() -> None:
    quote = binance_wire.parse_price({"symbol": "BTCUSDT", "price": "60685.22000000"}, "BTCUSDT", NOW)
    assert quote == Quote("BTCUSDT", 60685.22, NOW, "binance")


@pytest.mark.parametrize(
    "payload",
    [
        [],
        {"symbol": "BTCUSDT"},
        {"symbol": "BTCUSDT", "price": None},
        {"symbol": "BTCUSDT", "price": "0.00000000"},
        {"symbol": "BTCUSDT", "price": "nan"},
        {"symbol": "ETHUSDT", "price": "60685.22000000"},
    ],
)
def test_what_is_no_price_of_the_symbol_is_malformed(payload: object) -> None:
    with pytest.raises(Malformed):
        binance_wire.parse_price(payload, "BTCUSDT", NOW)


def test_the_used_weight_is_told_by_window() -> None:
    headers = {
        "x-mbx-used-weight": "37",
        "x-mbx-used-weight-1m": "37",
        "x-mbx-used-weight-5m": "120",
        "x-mbx-order-count-1d": "4",
        "date": "Sat, 21 Nov 2026 07:00:00 GMT",
    }
    assert binance_wire.parse_usage(headers) == {"1m": 37, "5m": 120}


@pytest.mark.parametrize("text", ["", "many", "-1", "3.5", "9" * 40])
def test_a_used_weight_that_is_no_count_is_left_out(text: str) -> None:
    assert binance_wire.parse_usage({"x-mbx-used-weight-1m": text}) == {}
