"""Bars of Binance from a server that speaks its protocol, on loopback: ranges, pages, holes, open bars."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cluster.clock import FakeClock
from cluster.errors import (
    Malformed,
)
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.providers.binance import (
    BinanceProvider,
)
from cluster.providers.budget import Window
from cluster.providers.gateway import Gateway, GatewayPolicy
from tests.integration.providers.binance.asking import MINUTE, NOW, START, client, minutes
from tests.services import faults
from tests.services.binance import Binance, kline, to_ms

FLAT = ("10.00000000", "10.00000000", "10.00000000", "10.00000000")


async def test_the_bars_of_a_range_come_with_prices_volume_and_trades(provider: BinanceProvider) -> None:
    table = await provider.bars("BTCUSDT", Interval.M1, START, START + 2 * MINUTE)
    assert table.drop_columns(["symbol", "interval", "source", "is_final", "aligned"]).to_pylist() == [
        {
            "ts": START,
            "open": 100.0,
            "high": 100.02,
            "low": 99.98,
            "close": 100.01,
            "volume": 1.5,
            "trade_count": 3,
        },
        {
            "ts": START + MINUTE,
            "open": 100.01,
            "high": 100.03,
            "low": 99.99,
            "close": 100.02,
            "volume": 1.5,
            "trade_count": 3,
        },
    ]


async def test_the_request_says_what_the_venue_documents_and_no_time_zone(
    provider: BinanceProvider, venue: Binance
) -> None:
    await minutes(provider, 0, 10)
    assert venue.asked[0].path == "/api/v3/klines"
    assert venue.asked[0].params == {
        "symbol": "BTCUSDT",
        "interval": "1m",
        "startTime": "1717408800000",
        "endTime": "1717409399999",
        "limit": "1000",
    }


@pytest.mark.parametrize("interval", list(Interval))
async def test_every_interval_is_spelled_as_the_venue_spells_it(
    provider: BinanceProvider, venue: Binance, interval: Interval
) -> None:
    venue.fill("BTCUSDT", str(interval), datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 4, tzinfo=UTC))
    table = await provider.bars(
        "BTCUSDT", interval, datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 3, tzinfo=UTC)
    )
    assert table.num_rows == min(1_000, 2 * 86_400 // interval.seconds)
    assert set(table["aligned"].to_pylist()) == {True}


async def test_the_range_is_half_open(provider: BinanceProvider) -> None:
    assert await minutes(provider, 3, 6) == ["10:03", "10:04", "10:05"]


async def test_a_window_of_one_bar_holds_that_bar(provider: BinanceProvider) -> None:
    assert await minutes(provider, 3, 4) == ["10:03"]
    just = START + 3 * MINUTE
    table = await provider.bars("BTCUSDT", Interval.M1, just, just + timedelta(microseconds=1))
    assert table["ts"].to_pylist() == [just]


async def test_a_start_within_a_millisecond_leaves_the_bar_before_it_out(provider: BinanceProvider) -> None:
    late = START + timedelta(microseconds=1)
    table = await provider.bars("BTCUSDT", Interval.M1, late, START + 2 * MINUTE)
    assert table["ts"].to_pylist() == [START + MINUTE]


async def test_an_empty_window_and_a_time_before_the_venue_cost_no_call(
    provider: BinanceProvider, venue: Binance
) -> None:
    assert await minutes(provider, 3, 3) == []
    table = await provider.bars(
        "BTCUSDT", Interval.D1, datetime(2010, 1, 1, tzinfo=UTC), datetime(2017, 7, 14, tzinfo=UTC)
    )
    assert table.equals(bars.empty())
    assert venue.asked == []


async def test_a_range_without_bars_is_an_empty_table(provider: BinanceProvider) -> None:
    assert await minutes(provider, -600, -500) == []


async def test_missing_minutes_stay_missing(provider: BinanceProvider, venue: Binance) -> None:
    for minute in (4, 5):
        venue.remove("BTCUSDT", "1m", to_ms(START + minute * MINUTE))
    assert await minutes(provider, 3, 8) == ["10:03", "10:06", "10:07"]


async def test_a_short_page_is_not_the_end_by_itself_and_every_page_is_paid_for(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    venue.longest_page = 4
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(100, 3_600.0),)))
    table = await gateway.fetch("BTCUSDT", Interval.M1, START, START + 10 * MINUTE)
    assert table["ts"].to_pylist() == [START + minute * MINUTE for minute in range(10)]
    assert len(venue.asked) == 3
    assert gateway.stats().budget_left[0].left == 94
    table = await gateway.fetch("BTCUSDT", Interval.M1, START, START + 8 * MINUTE)
    assert table.num_rows == 8
    assert gateway.stats().budget_left[0].left == 90


async def test_a_hole_at_the_end_of_the_range_costs_one_call_more(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    venue.remove("BTCUSDT", "1m", to_ms(START + 9 * MINUTE))
    table = await Gateway(provider, clock).fetch("BTCUSDT", Interval.M1, START, START + 10 * MINUTE)
    assert table.num_rows == 9
    assert [asked.params["startTime"] for asked in venue.asked] == ["1717408800000", "1717409280001"]


@pytest.mark.parametrize(("second", "calls"), [(2, 1), (3, 1), (4, 2)])
async def test_a_bar_that_has_just_opened_is_not_missed_before_the_database_can_have_it(
    provider: BinanceProvider, clock: FakeClock, second: int, calls: int, venue: Binance
) -> None:
    clock.advance(30 + second)  # 12:01:00 and that many seconds, and the venue has no bar of 12:01 yet
    asked = ("BTCUSDT", Interval.M1, START + 119 * MINUTE, START + 180 * MINUTE)
    table = await Gateway(provider, clock).fetch(*asked)
    assert [f"{ts:%H:%M}" for ts in table["ts"].to_pylist()] == ["11:59", "12:00"]
    assert len(venue.asked) == calls


@pytest.mark.parametrize("last", [10, 120, 121, 600])
async def test_a_range_up_to_its_end_or_up_to_now_costs_one_call(
    provider: BinanceProvider, venue: Binance, clock: FakeClock, last: int
) -> None:
    await Gateway(provider, clock).fetch("BTCUSDT", Interval.M1, START, START + last * MINUTE)
    assert len(venue.asked) == 1


async def test_a_range_of_one_full_page_costs_one_call(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    venue.fill("BTCUSDT", "1m", START - 1_001 * MINUTE, START)
    table = await Gateway(provider, clock).fetch("BTCUSDT", Interval.M1, START - 1_000 * MINUTE, START)
    assert table.num_rows == 1_000
    assert len(venue.asked) == 1


async def test_the_rest_of_a_range_is_asked_for_when_a_bar_may_open_in_it(
    provider: BinanceProvider, venue: Binance
) -> None:
    after = timedelta(microseconds=1)
    table = await provider.bars("BTCUSDT", Interval.M1, START + after, START + MINUTE + after)
    assert table["ts"].to_pylist() == [START + MINUTE]
    assert (await provider.bars("BTCUSDT", Interval.M1, START + after, START + MINUTE)).equals(bars.empty())
    assert len(venue.asked) == 1


async def test_one_call_answers_one_page_of_a_thousand(provider: BinanceProvider, venue: Binance) -> None:
    venue.fill("BTCUSDT", "1m", START - 2_000 * MINUTE, START)
    table = await provider.bars("BTCUSDT", Interval.M1, START - 2_000 * MINUTE, START)
    assert table.num_rows == 1_000
    assert table["ts"][999].as_py() == START - 1_001 * MINUTE
    assert len(venue.asked) == 1


@pytest.mark.parametrize("hole", [range(995, 1_005), range(1_000, 1_010), range(990, 1_000)])
async def test_paging_finds_every_bar_around_a_hole_at_the_end_of_a_page(
    provider: BinanceProvider, venue: Binance, clock: FakeClock, hole: range
) -> None:
    first = START - 2_100 * MINUTE
    venue.fill("BTCUSDT", "1m", first, START)
    for minute in hole:
        venue.remove("BTCUSDT", "1m", to_ms(first + minute * MINUTE))
    table = await Gateway(provider, clock).fetch("BTCUSDT", Interval.M1, first, START)
    expected = [first + minute * MINUTE for minute in range(2_100) if minute not in hole]
    assert table["ts"].to_pylist() == expected


async def test_paging_finds_the_bars_off_the_grid_and_the_first_one_back_on_it(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    odd_ms = range(1_518_168_494_789, 1_518_319_694_790, 3_600_000)
    opens_ms = [1_518_048_000_000, *odd_ms, 1_518_321_600_000]
    venue.put("BTCUSDT", "1h", *(kline(ms, ms + 1_800_000, FLAT, "1.0", 1) for ms in opens_ms))
    start, end = datetime(2018, 2, 8, tzinfo=UTC), datetime(2018, 2, 11, 4, 30, tzinfo=UTC)
    table = await Gateway(provider, clock).fetch("BTCUSDT", Interval.H1, start, end)
    assert [to_ms(ts) for ts in table["ts"].to_pylist()] == opens_ms
    assert table["aligned"].to_pylist() == [True, *[False] * len(odd_ms), True]


async def test_a_window_of_one_bar_off_the_grid_holds_that_bar(
    provider: BinanceProvider, venue: Binance
) -> None:
    venue.put("BTCUSDT", "1h", kline(1_518_168_494_789, 1_518_172_094_788, FLAT, "1.0", 1))
    just = datetime(2018, 2, 9, 9, 28, 14, 789_000, tzinfo=UTC)
    table = await provider.bars("BTCUSDT", Interval.H1, just, just + timedelta(milliseconds=1))
    assert table.select(["ts", "aligned"]).to_pylist() == [{"ts": just, "aligned": False}]


async def test_the_bar_in_progress_comes_last_and_is_not_final(provider: BinanceProvider) -> None:
    table = await provider.bars("BTCUSDT", Interval.M1, START + 118 * MINUTE, NOW + MINUTE)
    assert [(f"{bar['ts']:%H:%M}", bar["is_final"]) for bar in table.to_pylist()] == [
        ("11:58", True),
        ("11:59", True),
        ("12:00", False),
    ]


async def test_a_bar_is_final_three_seconds_after_its_close_because_the_database_lags(
    provider: BinanceProvider, clock: FakeClock
) -> None:
    for seconds, final in ((30, False), (2, False), (1, True)):  # 12:01:00, 12:01:02, 12:01:03
        clock.advance(seconds)
        table = await provider.bars("BTCUSDT", Interval.M1, START + 120 * MINUTE, START + 121 * MINUTE)
        assert table["is_final"].to_pylist() == [final], clock.now()


async def test_whether_a_bar_has_closed_is_told_by_the_clock_of_the_venue(url: str) -> None:
    async with client(url, FakeClock(NOW + timedelta(hours=1))) as ours_is_fast:
        table = await ours_is_fast.bars("BTCUSDT", Interval.M1, START + 119 * MINUTE, NOW)
    assert table["is_final"].to_pylist() == [True, False]


async def test_a_bar_that_the_venue_has_revised_is_answered_as_it_is_now(
    provider: BinanceProvider, venue: Binance
) -> None:
    before = await provider.bars("BTCUSDT", Interval.M1, START, START + MINUTE)
    venue.put("BTCUSDT", "1m", kline(to_ms(START), to_ms(START) + 59_999, FLAT, "2.00000000", 4))
    after = await provider.bars("BTCUSDT", Interval.M1, START, START + MINUTE)
    assert [(bar["close"], bar["volume"]) for bar in (*before.to_pylist(), *after.to_pylist())] == [
        (100.01, 1.5),
        (10.0, 2.0),
    ]


async def test_an_answer_in_microseconds_is_understood(provider: BinanceProvider, venue: Binance) -> None:
    expected = await provider.bars("BTCUSDT", Interval.M1, START, START + 2 * MINUTE)
    venue.microseconds = True
    assert (await provider.bars("BTCUSDT", Interval.M1, START, START + 2 * MINUTE)).equals(expected)


async def test_bars_that_were_not_asked_for_are_malformed_and_not_dropped(
    provider: BinanceProvider, venue: Binance
) -> None:
    newest = kline(to_ms(NOW), to_ms(NOW) + 59_999, FLAT, "1.0", 1)
    venue.faults.append(faults.says(200, [newest]))
    with pytest.raises(Malformed, match="outside of the range"):
        await minutes(provider, 0, 10)
