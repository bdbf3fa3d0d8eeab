"""What Finnhub answers, and what it means; all answers are written by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.errors import (
    InputError,
    InvalidSymbol,
    Malformed,
    NotEntitled,
    ProviderDown,
    RateLimited,
    Unauthorized,
)
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.providers import finnhub_wire as wire
from cluster.providers.http import Answer
from cluster.providers.protocol import Quote

NOW = datetime(2024, 6, 10, 12, tzinfo=UTC)
KEY = "c0ffee1234567890abcd"
FIXTURES = Path(__file__).parents[3].parent / "shared" / "fixtures" / "providers" / "finnhub"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def candles(*times: str | int, **changes: Any) -> Any:
    """An answer with the given times (UTC), the same prices in every row."""
    count = len(times)
    stamps = [at if isinstance(at, int) else int(utc(at).timestamp()) for at in times]
    prices = {"o": [10.0] * count, "h": [12.0] * count, "l": [9] * count, "c": [11.5] * count}
    return {**prices, "v": [100] * count, "s": "ok", "t": stamps, **changes}


def parse(payload: Any, interval: Interval = Interval.M1, now: datetime = NOW) -> pa.Table:
    return wire.parse_candles(payload, "AAPL", interval, now)


def opens(table: pa.Table) -> list[datetime]:
    found: list[datetime] = table["ts"].to_pylist()
    return found


def answer(status: int, body: object, **headers: str) -> Answer:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Answer(status, headers, data, NOW, "finnhub", (KEY,))


def test_a_candle_becomes_a_bar() -> None:
    table = parse(candles("2024-06-03 13:30", v=[1504949]))
    assert table.schema == bars.BAR_SCHEMA
    assert table.to_pylist() == [
        {
            "symbol": "AAPL", "interval": "1m", "ts": utc("2024-06-03 13:30"), "open": 10.0, "high": 12.0,
            "low": 9.0, "close": 11.5, "volume": 1504949.0, "trade_count": None, "source": "finnhub",
            "is_final": True, "aligned": True,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("midnight", "session_open"),
    [
        (1569297600, "2019-09-24 13:30"),  # 04:00Z in summer
        (1547010000, "2019-01-09 14:30"),  # 2019-01-09 05:00Z in winter
    ],
)
def test_a_daily_candle_at_midnight_of_new_york_opens_with_its_session(
    midnight: int, session_open: str
) -> None:
    assert opens(parse(candles(midnight), Interval.D1)) == [utc(session_open)]


@pytest.mark.parametrize("label", ["2024-06-03 00:00", "2024-06-03 05:00", "2024-06-03 13:30"])
def test_a_daily_candle_at_any_other_time_is_malformed(label: str) -> None:
    with pytest.raises(Malformed, match="not midnight in New York"):
        parse(candles(label), Interval.D1)


def test_a_daily_candle_without_a_session_is_no_bar() -> None:
    table = parse(candles("2024-05-27 04:00", "2024-05-28 04:00"), Interval.D1)  # Memorial Day
    assert opens(table) == [utc("2024-05-28 13:30")]


def test_no_data_is_an_empty_table() -> None:
    assert parse({"s": "no_data"}).equals(bars.empty())


def test_a_hole_of_hours_does_not_keep_the_bars_around_it_from_being_read() -> None:
    table = parse(candles("2021-02-23 14:39", "2021-02-23 19:10"))
    assert opens(table) == [utc("2021-02-23 14:39"), utc("2021-02-23 19:10")]


def test_candles_of_extended_hours_are_no_bars() -> None:
    """09:29 and 16:00 of a whole day, 13:00 of a half day."""
    labels = (
        "2023-06-30 13:29",
        "2023-06-30 13:30",
        "2023-06-30 20:00",
        "2023-07-03 16:59",
        "2023-07-03 17:00",
    )
    assert opens(parse(candles(*labels))) == [utc("2023-06-30 13:30"), utc("2023-07-03 16:59")]


def test_a_candle_is_final_a_minute_after_its_close() -> None:
    payload = candles("2024-06-03 13:30", "2024-06-03 13:45")
    for now, finals in {
        utc("2024-06-03 14:00:59"): [True, False],
        utc("2024-06-03 14:01:00"): [True, True],
    }.items():
        assert parse(payload, Interval.M15, now)["is_final"].to_pylist() == finals


def test_the_day_of_the_running_session_is_not_final_before_its_early_close() -> None:
    payload = candles("2023-07-03 04:00")
    assert parse(payload, Interval.D1, utc("2023-07-03 17:00:59"))["is_final"].to_pylist() == [False]
    assert parse(payload, Interval.D1, utc("2023-07-03 17:01:00"))["is_final"].to_pylist() == [True]


def test_volumes_may_be_fractions_and_a_null_one_is_unknown() -> None:
    table = parse(candles("2024-06-03 13:30", "2024-06-03 13:31", v=[0.01559, None]))
    assert table["volume"].to_pylist() == [0.01559, None]


def test_a_row_with_a_null_price_is_left_out() -> None:
    table = parse(candles("2024-06-03 13:30", "2024-06-03 13:31", c=[None, 10.5]))
    assert opens(table) == [utc("2024-06-03 13:31")]
    assert table["close"].to_pylist() == [10.5]


def test_times_in_milliseconds_are_not_taken_for_seconds() -> None:
    with pytest.raises(Malformed, match="expected seconds since 1970"):
        parse(candles(1721555886208))


def test_candles_in_any_order_become_ascending_and_of_two_the_last_counts() -> None:
    labels = ("2024-06-03 13:31", "2024-06-03 13:30", "2024-06-03 13:31")
    table = parse(candles(*labels, v=[1, 2, 3]))
    assert opens(table) == [utc("2024-06-03 13:30"), utc("2024-06-03 13:31")]
    assert table["volume"].to_pylist() == [2.0, 3.0]


def test_a_price_of_zero_is_rejected_before_it_is_stored() -> None:
    checked = bars.validate(parse(candles("2024-06-03 13:30", o=[0])), NOW)
    assert checked.good.num_rows == 0
    assert "not above zero" in checked.rejected["reason"][0].as_py()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (candles("2024-06-03 13:30", o=[1.0, 2.0]), "2 values of o for 1 candles"),
        (candles("2024-06-03 13:30", v=None), "no values of v"),
        (candles("2024-06-03 13:30", h=["12.0"]), "a h that is no number"),
        (candles("2024-06-03 13:30", t=["1717421400"]), "no list of whole seconds"),
        (candles("2024-06-03 13:30", t=[1717421400.5]), "no list of whole seconds"),
        ({"s": "ok"}, "no list of whole seconds"),
        ({"s": "error", "t": []}, "status 'error'"),
        ({}, "status None"),
        ([], "status None"),
        ("no_data", "status None"),
    ],
)
def test_candles_of_another_shape_are_malformed(payload: Any, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        parse(payload)


class TestQuote:
    def test_the_price_carries_the_time_of_its_last_trade(self) -> None:
        payload = {"c": 261.74, "d": 2.29, "dp": 0.8826, "h": 263.31, "l": 260.68, "o": 261.07, "pc": 259.45}
        quote = wire.parse_quote({**payload, "t": 1582641000}, "AAPL", NOW)
        assert quote == Quote("AAPL", 261.74, utc("2020-02-25 14:30"), "finnhub")

    def test_zeros_mean_an_unknown_symbol(self) -> None:
        payload = {"c": 0, "d": None, "dp": None, "h": 0, "l": 0, "o": 0, "pc": 0, "t": 0}
        with pytest.raises(InvalidSymbol, match="'NOPE'"):
            wire.parse_quote(payload, "NOPE", NOW)

    @pytest.mark.parametrize("payload", [{"c": 0, "t": 1582641000}, {"c": 12.5, "t": 0}])
    def test_one_zero_is_enough(self, payload: Any) -> None:
        with pytest.raises(InvalidSymbol):
            wire.parse_quote(payload, "NOPE", NOW)

    @pytest.mark.parametrize(
        "payload",
        [
            [],
            {},
            {"c": None, "t": 1582641000},
            {"c": "261.74", "t": 1582641000},
            {"c": -1.0, "t": 1582641000},
            {"c": True, "t": 1582641000},
            {"c": float("nan"), "t": 1582641000},
            {"c": 10**400, "t": 1582641000},
            {"c": 261.74, "t": 10**400},
            {"c": 261.74, "t": 1582641000000},  # milliseconds
            {"c": 261.74, "t": "now"},
        ],
    )
    def test_a_quote_of_another_shape_is_malformed(self, payload: Any) -> None:
        with pytest.raises(Malformed):
            wire.parse_quote(payload, "AAPL", NOW)


@pytest.mark.parametrize("name", ["o", "v", "t"])
def test_a_number_that_nothing_can_hold_is_malformed(name: str) -> None:
    with pytest.raises(Malformed):
        parse(candles("2024-06-03 13:30", **{name: [10**400]}))


class TestRefusals:
    def test_an_answer_with_200_is_none(self) -> None:
        assert wire.refusal(answer(200, {"s": "no_data"})) is None

    @pytest.mark.parametrize("status", [403, 401])  # 401 in older answers
    def test_no_access_means_not_entitled(self, status: int) -> None:
        refused = wire.refusal(answer(status, {"error": "You don't have access to this resource."}))
        assert isinstance(refused, NotEntitled)
        assert "the key's plan does not include this" in str(refused)

    def test_an_invalid_key_is_named_with_its_setting(self) -> None:
        refused = wire.refusal(answer(401, {"error": "Invalid API key."}))
        assert isinstance(refused, Unauthorized)
        assert "FINNHUB_API_KEY" in str(refused)

    def test_a_page_of_the_firewall_with_403_says_nothing_about_the_plan(self) -> None:
        assert isinstance(wire.refusal(answer(403, "<html>Just a moment...</html>")), ProviderDown)

    @pytest.mark.parametrize("status", [400, 422])
    def test_a_wrong_request_is_our_fault_and_not_the_services(self, status: int) -> None:
        assert isinstance(wire.refusal(answer(status, {"error": "Wrong resolution"})), InputError)

    def test_429_means_wait(self) -> None:
        limited = RateLimited("slow down", NOW + timedelta(seconds=7))
        assert (
            wire.throttled(answer(429, {"error": "API limit reached. Remaining Limit: 0"}), limited)
            is limited
        )

    def test_429_with_the_words_for_a_missing_key_means_that_the_key_is_refused(self) -> None:
        text = "API limit reached. Please sign up for a free account to continue using the API."
        refused = wire.throttled(answer(429, text), RateLimited("slow down", NOW))
        assert isinstance(refused, Unauthorized)

    def test_the_key_is_told_in_no_error(self) -> None:
        echo = {"error": f"You don't have access to this resource. (key {KEY})"}
        for status in (400, 401, 403, 451):
            assert KEY not in str(wire.refusal(answer(status, echo)))


class TestUsage:
    def test_it_is_the_limit_less_what_remains(self) -> None:
        assert wire.parse_usage({"x-ratelimit-limit": "60", "x-ratelimit-remaining": "23"}) == {"1m": 37}

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"x-ratelimit-limit": "60"},
            {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "-1"},
            {"x-ratelimit-limit": "many", "x-ratelimit-remaining": "few"},
        ],
    )
    def test_without_both_numbers_nothing_is_told(self, headers: dict[str, str]) -> None:
        assert wire.parse_usage(headers) == {}


@pytest.mark.skipif(not FIXTURES.exists(), reason=f"real answers are kept in {FIXTURES}, which is missing")
class TestRealAnswers:
    def test_three_days_of_2019_are_read(self) -> None:
        table = parse(json.loads((FIXTURES / "stock_candles.json").read_text()), Interval.D1)
        assert opens(table) == [utc(f"2019-09-{day} 13:30") for day in (24, 25, 26)]
        assert table["volume"].to_pylist() == [33463820.0, 24018876.0, 20730608.0]

    def test_a_quote_without_a_time_is_as_new_as_its_answer_at_most(self) -> None:
        payload = json.loads((FIXTURES / "quote.json").read_text())
        assert wire.parse_quote(payload, "AAPL", NOW) == Quote("AAPL", 261.74, NOW, "finnhub")
