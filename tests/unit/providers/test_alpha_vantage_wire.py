"""What Alpha Vantage writes, and what it means; all answers are written by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from cluster.errors import InvalidSymbol, Malformed, NotEntitled, RateLimited, Unauthorized
from cluster.market.bars import BAR_SCHEMA, empty
from cluster.market.intervals import Interval
from cluster.providers import alpha_vantage_wire as wire
from cluster.providers.protocol import Quote

NOW = datetime(2024, 6, 10, 12, tzinfo=UTC)
ROW = {"1. open": "10.0", "2. high": "12.0", "3. low": "9.0", "4. close": "11.0", "5. volume": "100"}
FIXTURES = Path(__file__).parents[3].parent / "shared" / "fixtures" / "providers" / "alpha_vantage"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def intraday(*labels: str, interval: str = "1min", zone: str = "US/Eastern", symbol: str = "MSFT") -> Any:
    """An answer as it comes: newest first."""
    meta = {
        "1. Information": f"Intraday ({interval}) open, high, low, close prices and volume",
        "2. Symbol": symbol,
        "3. Last Refreshed": labels[-1] if labels else "",
        "4. Interval": interval,
        "5. Output Size": "Full size",
        "6. Time Zone": zone,
    }
    return {"Meta Data": meta, f"Time Series ({interval})": dict.fromkeys(reversed(labels), ROW)}


def daily(**rows: dict[str, str]) -> Any:
    meta = {"1. Information": "Daily Prices", "2. Symbol": "MSFT", "4. Output Size": "Compact"}
    return {"Meta Data": {**meta, "5. Time Zone": "US/Eastern"}, "Time Series (Daily)": rows}


def parse(payload: Any, interval: Interval = Interval.M1, **options: Any) -> pa.Table:
    return wire.parse_intraday(payload, "MSFT", interval, NOW, **options)


def opens(table: pa.Table) -> list[datetime]:
    found: list[datetime] = table["ts"].to_pylist()
    return found


def test_rows_that_come_newest_first_become_bars_in_ascending_order() -> None:
    payload = intraday("2024-06-03 09:30:00", "2024-06-03 09:31:00")
    payload["Time Series (1min)"]["2024-06-03 09:31:00"] = {
        "1. open": "86.4900", "2. high": "86.5000", "3. low": "86.4750", "4. close": "86.4801",
        "5. volume": "10494",
    }  # fmt: skip
    table = parse(payload)
    assert table.schema == BAR_SCHEMA
    assert table.to_pylist()[1] == {
        "symbol": "MSFT", "interval": "1m", "ts": utc("2024-06-03 13:31"), "open": 86.49, "high": 86.5,
        "low": 86.475, "close": 86.4801, "volume": 10494.0, "trade_count": None, "source": "alpha_vantage",
        "is_final": True, "aligned": True,
    }  # fmt: skip
    assert opens(table) == [utc("2024-06-03 13:30"), utc("2024-06-03 13:31")]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("2025-03-07 09:30:00", "2025-03-07 14:30"),  # the last Friday of winter time
        ("2025-03-10 09:30:00", "2025-03-10 13:30"),  # the first Monday of summer time
        ("2025-10-31 09:30:00", "2025-10-31 13:30"),
        ("2025-11-03 09:30:00", "2025-11-03 14:30"),
    ],
)
def test_the_wall_clock_of_new_york_becomes_utc_on_both_sides_of_a_clock_change(
    label: str, expected: str
) -> None:
    table = wire.parse_intraday(intraday(label), "MSFT", Interval.M1, datetime(2026, 1, 1, tzinfo=UTC))
    assert opens(table) == [utc(expected)]


def test_times_in_utc_are_taken_as_they_are() -> None:
    assert opens(parse(intraday("2024-06-03 13:30:00", zone="UTC"))) == [utc("2024-06-03 13:30")]


def test_an_unknown_time_zone_is_not_guessed() -> None:
    with pytest.raises(Malformed, match="'Mars/Olympus'"):
        parse(intraday("2024-06-03 13:30:00", zone="Mars/Olympus"))


def test_the_zone_is_found_by_its_name_because_its_number_differs_by_function() -> None:
    payload = intraday("2024-06-03 13:30:00")
    payload["Meta Data"] = {"7. Time Zone": "UTC"}
    assert opens(parse(payload)) == [utc("2024-06-03 13:30")]


def test_without_a_zone_times_are_those_of_new_york() -> None:
    payload = intraday("2024-06-03 09:30:00")
    del payload["Meta Data"]
    assert opens(parse(payload)) == [utc("2024-06-03 13:30")]


class TestLabels:
    """Labels of 2020 told the end of a bar, those of 2023 tell its start."""

    def test_a_regular_day_that_begins_with_the_open_is_labelled_by_start(self) -> None:
        table = parse(intraday("2024-06-03 09:30:00", "2024-06-03 15:45:00", interval="15min"), Interval.M15)
        assert opens(table) == [utc("2024-06-03 13:30"), utc("2024-06-03 19:45")]

    def test_a_regular_day_that_ends_with_the_close_is_labelled_by_end(self) -> None:
        table = parse(intraday("2024-06-03 09:45:00", "2024-06-03 16:00:00", interval="15min"), Interval.M15)
        assert opens(table) == [utc("2024-06-03 13:30"), utc("2024-06-03 19:45")]

    def test_a_half_day_that_ends_with_its_early_close_is_labelled_by_end(self) -> None:
        table = parse(intraday("2023-07-03 09:31:00", "2023-07-03 13:00:00"))
        assert opens(table) == [utc("2023-07-03 13:30"), utc("2023-07-03 16:59")]

    def test_with_extended_hours_a_day_from_04_00_is_labelled_by_start(self) -> None:
        table = parse(intraday("2024-06-03 04:00:00", "2024-06-03 09:30:00", "2024-06-03 16:00:00"))
        assert opens(table) == [utc("2024-06-03 13:30")]

    def test_with_extended_hours_a_day_until_20_00_is_labelled_by_end(self) -> None:
        table = parse(intraday("2024-06-03 04:01:00", "2024-06-03 16:00:00", "2024-06-03 20:00:00"))
        assert opens(table) == [utc("2024-06-03 19:59")]

    def test_16_00_proves_nothing_with_extended_hours(self) -> None:
        labels = intraday("2024-06-03 04:30:00", "2024-06-03 15:59:00", "2024-06-03 16:00:00")
        assert opens(parse(labels)) == [utc("2024-06-03 19:59")]
        assert opens(parse(labels, assumed="end")) == [utc("2024-06-03 19:58"), utc("2024-06-03 19:59")]

    @pytest.mark.parametrize(
        "labels",
        [
            ("2024-06-03 09:30:00", "2024-06-03 16:00:00"),  # one day, regular hours
            ("2024-06-03 04:00:00", "2024-06-03 20:00:00"),  # one day, extended hours
            ("2024-06-03 09:30:00", "2024-06-04 16:00:00"),  # two days
        ],
    )
    def test_labels_that_contradict_each_other_are_malformed(self, labels: tuple[str, ...]) -> None:
        with pytest.raises(Malformed, match="with their starts and with their ends"):
            parse(intraday(*labels))

    def test_without_a_whole_day_the_start_is_assumed_unless_told_otherwise(self) -> None:
        payload = intraday("2024-06-03 13:17:00", "2024-06-03 14:56:00")
        with capture_logs() as logs:
            parse(payload)
            parse(intraday("2024-06-03 09:30:00"))
        assert [(log["event"], log["side"], log["count"]) for log in logs] == [
            ("bar_labels_assumed", "start", 2)
        ]
        assert opens(parse(payload)) == [utc("2024-06-03 17:17"), utc("2024-06-03 18:56")]
        assert opens(parse(payload, assumed="end")) == [utc("2024-06-03 17:16"), utc("2024-06-03 18:55")]


def test_rows_outside_of_sessions_are_no_bars() -> None:
    """Extended hours, a Saturday, and the hours after the early close of a half day."""
    labels = ("2023-07-01 10:00:00", "2023-07-03 04:00:00", "2023-07-03 12:59:00", "2023-07-03 13:00:00")
    assert opens(parse(intraday(*labels))) == [utc("2023-07-03 16:59")]


def test_a_bar_is_final_a_minute_after_its_close() -> None:
    payload = intraday("2024-06-03 09:30:00", "2024-06-03 09:35:00", interval="5min")
    for now, finals in {
        utc("2024-06-03 13:40:59"): [True, False],
        utc("2024-06-03 13:41:00"): [True, True],
    }.items():
        table = wire.parse_intraday(payload, "MSFT", Interval.M5, now)
        assert table["is_final"].to_pylist() == finals


def test_keys_are_matched_by_what_follows_their_number() -> None:
    payload = daily()
    row = {"1. open": "1", "2. high": "4", "3. low": "1", "4. close": "2", "5. adjusted close": "99"}
    payload["Time Series (Daily)"] = {"2024-06-03": {**row, "6. volume": "7"}}
    table = wire.parse_daily(payload, "MSFT", NOW)
    assert [table[name][0].as_py() for name in ("close", "volume")] == [2.0, 7.0]


def test_a_row_without_a_volume_has_an_unknown_volume_and_not_zero() -> None:
    payload = intraday("2024-06-03 09:30:00")
    row = {key: value for key, value in ROW.items() if key != "5. volume"}
    payload["Time Series (1min)"] = {"2024-06-03 09:30:00": row}
    assert parse(payload)["volume"].to_pylist() == [None]


def test_prices_in_another_currency_are_not_taken_for_ours() -> None:
    payload = daily()
    payload["Time Series (Daily)"] = {"2024-06-03": {"1a. open (CNY)": "1", "2a. high (CNY)": "1"}}
    with pytest.raises(Malformed, match="None where a number was expected"):
        wire.parse_daily(payload, "MSFT", NOW)


@pytest.mark.parametrize("value", ["", "abc", None, {}, 10**400])
def test_a_price_that_is_no_number_is_malformed(value: object) -> None:
    payload = intraday("2024-06-03 09:30:00")
    payload["Time Series (1min)"] = {"2024-06-03 09:30:00": {**ROW, "1. open": value}}
    with pytest.raises(Malformed, match="where a number was expected"):
        parse(payload)


def test_a_label_that_is_no_time_is_malformed() -> None:
    with pytest.raises(Malformed, match="a time that is none"):
        parse(intraday("yesterday"))


def test_times_of_another_century_are_malformed() -> None:
    with pytest.raises(Malformed, match="is their unit another one"):
        parse(intraday("1824-06-03 09:30:00"))


def test_an_answer_for_another_symbol_or_interval_is_malformed() -> None:
    with pytest.raises(Malformed, match="the symbol 'AAPL'; asked for 'MSFT'"):
        parse(intraday("2024-06-03 09:30:00", symbol="AAPL"))
    with pytest.raises(Malformed, match="the interval '5min'; asked for '1min'"):
        parse(intraday("2024-06-03 09:30:00", interval="5min"))


def test_a_series_without_rows_is_an_empty_table() -> None:
    assert parse(intraday()).equals(empty())


class TestDaily:
    def test_a_date_becomes_the_open_of_its_session_in_summer_and_in_winter(self) -> None:
        table = wire.parse_daily(daily(**{"2024-06-03": ROW, "2024-01-16": ROW}), "MSFT", NOW)
        assert opens(table) == [utc("2024-01-16 14:30"), utc("2024-06-03 13:30")]

    def test_a_date_without_a_session_is_no_bar(self) -> None:
        table = wire.parse_daily(daily(**{"2024-06-01": ROW, "2024-06-19": ROW}), "MSFT", utc("2024-07-01"))
        assert table.num_rows == 0

    def test_the_day_of_the_running_session_is_not_final(self) -> None:
        payload = daily(**{"2024-06-10": ROW, "2024-06-07": ROW})
        for now, finals in {
            utc("2024-06-10 20:00:59"): [True, False],
            utc("2024-06-10 20:01:00"): [True, True],
        }.items():
            assert wire.parse_daily(payload, "MSFT", now)["is_final"].to_pylist() == finals


BURST = (
    "Thank you for using Alpha Vantage! Please consider spreading out your free API requests more sparingly "
    "(1 request per second). You may subscribe to any of the premium plans at … to lift the free key rate "
    "limit (25 requests per day), raise the per-second burst limit, …"
)
DAY = (
    "We have detected your API key as ABC123 and our standard API rate limit is 25 requests per day. Please "
    "subscribe to …"
)
OLD = (
    "Thank you for using Alpha Vantage! Our standard API call frequency is 5 calls per minute and 500 calls "
    "per day. …"
)
BAD_CALL = "Invalid API call. Please retry or visit the documentation (…) for TIME_SERIES_INTRADAY."
PREMIUM = "Thank you for using Alpha Vantage! This is a premium endpoint. You may subscribe to …"
BAD_KEY = "the parameter apikey is invalid or missing."


class TestRefusals:
    """Limits and errors come with HTTP 200; only their words differ."""

    def test_the_burst_text_means_a_second_although_it_names_the_daily_limit_and_premium_plans(self) -> None:
        with pytest.raises(RateLimited, match="within a second") as limited:
            parse({"Information": BURST})
        assert timedelta(seconds=1) <= limited.value.retry_at - NOW <= timedelta(seconds=2)

    @pytest.mark.parametrize("payload", [{"Information": DAY}, {"Note": OLD}])
    def test_the_daily_text_means_the_next_day_in_new_york(self, payload: object) -> None:
        with pytest.raises(RateLimited, match="calls of the day") as limited:
            parse(payload)
        assert limited.value.retry_at == utc("2024-06-11 04:00")

    def test_the_daily_text_prints_our_key_and_the_error_does_not(self) -> None:
        with pytest.raises(RateLimited) as limited:
            parse({"Information": DAY})
        assert "ABC123" not in str(limited.value)

    def test_premium_means_not_entitled(self) -> None:
        with pytest.raises(NotEntitled, match="premium"):
            parse({"Information": PREMIUM})

    @pytest.mark.parametrize("name", ["Information", "Error Message"])
    def test_a_key_that_is_not_accepted_is_named_with_its_setting(self, name: str) -> None:
        with pytest.raises(Unauthorized, match="ALPHA_VANTAGE_API_KEY"):
            parse({name: BAD_KEY})

    def test_an_invalid_call_means_an_invalid_symbol(self) -> None:
        with pytest.raises(InvalidSymbol, match="'MSFT'"):
            parse({"Error Message": BAD_CALL})

    @pytest.mark.parametrize(
        "payload", [{}, [], None, "text", {"Information": "Good morning"}, {"Meta Data": {}}]
    )
    def test_anything_else_without_data_is_malformed(self, payload: object) -> None:
        with pytest.raises(Malformed, match="without the data of MSFT"):
            parse(payload)

    def test_an_answer_with_data_and_a_notice_is_an_answer_with_data(self) -> None:
        payload = {**intraday("2024-06-03 09:30:00"), "Information": BURST}
        assert parse(payload).num_rows == 1


@pytest.mark.parametrize(
    ("now", "midnight"),
    [
        ("2024-06-10 12:00", "2024-06-11 04:00"),
        ("2024-06-11 03:59", "2024-06-11 04:00"),
        ("2024-06-11 04:00", "2024-06-12 04:00"),
        ("2024-11-02 12:00", "2024-11-03 04:00"),
        ("2024-11-03 12:00", "2024-11-04 05:00"),  # the day that clocks went back
    ],
)
def test_the_daily_quota_begins_anew_at_midnight_of_new_york(now: str, midnight: str) -> None:
    assert wire.next_day(utc(now)) == utc(midnight)


def quoted(price: object, day: object) -> Any:
    fields = {"01. symbol": "MSFT", "05. price": price, "07. latest trading day": day}
    return {"Global Quote": {**fields, "10. change percent": "-0.5852%"}}


class TestQuote:
    def test_the_price_is_that_of_the_close_of_the_latest_trading_day(self) -> None:
        payload = quoted("112.1300", "2018-10-05")
        quote = wire.parse_quote(payload, "MSFT", NOW)
        assert quote == Quote("MSFT", 112.13, utc("2018-10-05 20:00"), "alpha_vantage")

    def test_during_the_session_it_is_as_new_as_now(self) -> None:
        now = utc("2024-06-10 15:00")
        assert wire.parse_quote(quoted("1", "2024-06-10"), "MSFT", now).ts == now

    def test_an_empty_quote_means_an_unknown_symbol(self) -> None:
        with pytest.raises(InvalidSymbol, match="'NOPE'"):
            wire.parse_quote({"Global Quote": {}}, "NOPE", NOW)

    @pytest.mark.parametrize("price", ["0.0000", "-1", "NaN", "inf", "", None])
    def test_a_price_that_is_none_is_never_answered(self, price: object) -> None:
        with pytest.raises(Malformed, match=r"price|number"):
            wire.parse_quote(quoted(price, "2024-06-07"), "MSFT", NOW)

    @pytest.mark.parametrize("day", ["", None, "soon", "2024-06-08"])
    def test_a_day_without_a_session_is_malformed(self, day: object) -> None:
        with pytest.raises(Malformed, match="latest trading day"):
            wire.parse_quote(quoted("1", day), "MSFT", NOW)

    def test_refusals_are_told_apart_for_quotes_too(self) -> None:
        with pytest.raises(RateLimited):
            wire.parse_quote({"Information": BURST}, "MSFT", NOW)


@pytest.mark.skipif(not FIXTURES.exists(), reason=f"real answers are kept in {FIXTURES}, which is missing")
class TestRealAnswers:
    def test_a_hundred_minutes_of_2017_are_read(self) -> None:
        payload = json.loads((FIXTURES / "time_series_intraday.json").read_text())
        table = parse(payload)
        assert table.num_rows == 100
        assert opens(table)[0] == utc("2017-12-18 18:17")
        assert [table[name][0].as_py() for name in ("open", "high", "low", "close", "volume")] == [
            86.8101, 86.8200, 86.7900, 86.8000, 31172.0
        ]  # fmt: skip

    def test_a_quote_of_2018_is_read(self) -> None:
        payload = json.loads((FIXTURES / "global_quote.json").read_text())
        quote = wire.parse_quote(payload, "MSFT", NOW)
        assert quote == Quote("MSFT", 112.13, utc("2018-10-05 20:00"), "alpha_vantage")
