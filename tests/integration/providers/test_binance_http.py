"""The client of Binance against a server that speaks Binance's protocol, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from starlette.types import Receive, Scope, Send

from cluster.clock import FakeClock
from cluster.errors import (
    InputError,
    InvalidSymbol,
    Malformed,
    ProviderDown,
    RateLimited,
    Restricted,
    Unauthorized,
)
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.providers import plans
from cluster.providers.binance import (
    BASE_URL,
    EXCHANGE_INFO_WEIGHT,
    KLINES_WEIGHT,
    PRICE_WEIGHT,
    BinanceProvider,
)
from cluster.providers.budget import Window, WindowLeft
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.providers.protocol import Metered, Quote, Quoting
from tests.services import binance, faults
from tests.services.binance import Binance, kline, to_ms

NOW = datetime(2024, 6, 3, 12, 0, 30, tzinfo=UTC)
START = datetime(2024, 6, 3, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FLAT = ("10.00000000", "10.00000000", "10.00000000", "10.00000000")
KEY = "q3Jb7wVtE9xLm2"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def venue(clock: FakeClock) -> Binance:
    """BTCUSDT with bars of a minute from 10:00 on, the one of 12:00 still open."""
    venue = Binance(now=clock.now)
    venue.list_symbol("BTCUSDT", "BTC", "USDT")
    venue.fill("BTCUSDT", "1m", START, NOW)
    return venue


class Stage:
    """Where the venue of the running test answers, so that one server will do for all of them."""

    def __init__(self) -> None:
        self.url = ""
        self.venue = Binance()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.venue(scope, receive, send)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    with binance.running(stage) as stage.url:
        yield stage


@pytest.fixture
def url(stage: Stage, venue: Binance) -> str:
    stage.venue = venue
    return stage.url


@pytest.fixture
async def provider(url: str, clock: FakeClock) -> AsyncIterator[BinanceProvider]:
    async with client(url, clock) as provider:
        yield provider


@asynccontextmanager
async def client(
    url: str, clock: FakeClock, api_key: str = "", timeout_s: float = 20.0
) -> AsyncIterator[BinanceProvider]:
    provider = BinanceProvider(url, api_key, clock.now, timeout_s=timeout_s)
    try:
        yield provider
    finally:
        await provider.close()


async def minutes(provider: BinanceProvider, first: int, last: int) -> list[str]:
    """The opens of the bars of [START + first, START + last) minutes."""
    table = await provider.bars("BTCUSDT", Interval.M1, START + first * MINUTE, START + last * MINUTE)
    return [f"{ts:%H:%M}" for ts in table["ts"].to_pylist()]


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


async def test_a_short_page_is_not_the_end_by_itself(provider: BinanceProvider, venue: Binance) -> None:
    venue.longest_page = 4
    assert await minutes(provider, 0, 10) == [f"10:{minute:02d}" for minute in range(10)]
    assert [asked.params["limit"] for asked in venue.asked] == ["1000", "996", "992"]
    venue.asked.clear()
    assert len(await minutes(provider, 0, 8)) == 8
    assert len(venue.asked) == 2


async def test_a_hole_at_the_end_of_the_range_costs_one_call_more(
    provider: BinanceProvider, venue: Binance
) -> None:
    venue.remove("BTCUSDT", "1m", to_ms(START + 9 * MINUTE))
    assert len(await minutes(provider, 0, 10)) == 9
    assert [asked.params["startTime"] for asked in venue.asked] == ["1717408800000", "1717409280001"]


@pytest.mark.parametrize(("second", "calls"), [(2, 1), (3, 1), (4, 2)])
async def test_a_bar_that_has_just_opened_is_not_missed_before_the_database_can_have_it(
    provider: BinanceProvider, clock: FakeClock, second: int, calls: int, venue: Binance
) -> None:
    clock.advance(30 + second)  # 12:01:00 and that many seconds, and the venue has no bar of 12:01 yet
    assert (await minutes(provider, 119, 180)) == ["11:59", "12:00"]
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


async def test_an_unknown_symbol_is_refused_and_leaves_the_breaker_alone(
    provider: BinanceProvider, clock: FakeClock
) -> None:
    gateway = Gateway(provider, clock)
    for _ in range(30):
        with pytest.raises(InvalidSymbol, match="'NOSUCHUSDT'"):
            await gateway.fetch("NOSUCHUSDT", Interval.M1, START, NOW)
    assert gateway.stats().state == "CLOSED"
    assert gateway.stats().error_rate == 0.0


@pytest.mark.parametrize("symbol", ["btcusdt", "EURUSD=X", "^GSPC", "SELECT * FROM", "币安人生USDT", ""])
async def test_what_the_venue_cannot_spell_is_never_sent_to_it(
    provider: BinanceProvider, venue: Binance, symbol: str
) -> None:
    with pytest.raises(InvalidSymbol, match="spells symbols such as BTCUSDT"):
        await provider.bars(symbol, Interval.M1, START, NOW)
    with pytest.raises(InvalidSymbol, match="spells symbols such as BTCUSDT"):
        await provider.quote(symbol)
    assert venue.asked == []


async def test_a_dollar_is_not_a_tether(provider: BinanceProvider) -> None:
    with pytest.raises(InvalidSymbol):
        await provider.bars("BTCUSD", Interval.M1, START, NOW)


async def test_a_parameter_that_the_venue_refuses_is_our_mistake(
    provider: BinanceProvider, venue: Binance
) -> None:
    venue.faults.append(faults.says(400, {"code": -1120, "msg": "Invalid interval."}))
    with pytest.raises(InputError, match="Invalid interval"):
        await minutes(provider, 0, 10)


async def test_the_weights_are_those_that_the_venue_counts(provider: BinanceProvider) -> None:
    assert (KLINES_WEIGHT, PRICE_WEIGHT, EXCHANGE_INFO_WEIGHT) == (2, 2, 20)
    assert provider.usage() == {}
    await minutes(provider, 0, 10)
    assert provider.usage() == {"1m": KLINES_WEIGHT}
    await provider.quote("BTCUSDT")
    assert provider.usage() == {"1m": KLINES_WEIGHT + PRICE_WEIGHT}
    await provider.list_instruments()
    assert provider.usage() == {"1m": KLINES_WEIGHT + PRICE_WEIGHT + EXCHANGE_INFO_WEIGHT}


async def test_a_page_has_the_same_weight_whatever_its_length(
    provider: BinanceProvider, venue: Binance
) -> None:
    venue.fill("BTCUSDT", "1m", START - 2_000 * MINUTE, START)
    await provider.bars("BTCUSDT", Interval.M1, START - 2_000 * MINUTE, START)
    assert provider.usage() == {"1m": 2}


async def test_what_others_use_of_our_address_is_seen_and_a_new_minute_begins_at_0(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    venue.weight.count(4_000, to_ms(clock.now()))
    await minutes(provider, 0, 10)
    assert provider.usage() == {"1m": 4_002}
    clock.advance(30)
    await minutes(provider, 0, 10)
    assert provider.usage() == {"1m": 2}


async def test_a_refused_call_tells_the_used_weight_too(provider: BinanceProvider) -> None:
    with pytest.raises(InvalidSymbol):
        await provider.quote("NOSUCHUSDT")
    assert provider.usage() == {"1m": 2}


async def test_too_much_weight_waits_for_the_next_minute(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    venue.weight.count(6_000, to_ms(clock.now()))
    with pytest.raises(RateLimited, match="Too much request weight used") as caught:
        await minutes(provider, 0, 10)
    assert caught.value.retry_at == datetime(2024, 6, 3, 12, 1, tzinfo=UTC)
    assert provider.usage() == {"1m": 6_002}
    clock.advance(30)
    assert len(await minutes(provider, 0, 10)) == 10


async def test_a_ban_is_kept_to_the_millisecond_and_then_over(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    clock.advance(0.25)
    venue.weight.patience = 0
    venue.weight.count(6_000, to_ms(clock.now()))
    with pytest.raises(RateLimited, match="IP banned until 1717416150250") as caught:
        await minutes(provider, 0, 10)
    # The header `Date` has whole seconds: a quarter of a second more than needed, never less.
    left = caught.value.retry_at - clock.now()
    assert timedelta(minutes=2) <= left < timedelta(minutes=2, seconds=1)
    clock.advance(left.total_seconds())
    assert len(await minutes(provider, 0, 10)) == 10


async def test_an_answer_that_tells_no_weight_leaves_no_old_count_behind(
    provider: BinanceProvider, venue: Binance
) -> None:
    await minutes(provider, 0, 10)
    venue.faults.append(faults.html(403))
    with pytest.raises(RateLimited):
        await minutes(provider, 0, 10)
    assert provider.usage() == {}


async def asked_through(gateway: Gateway, calls: int) -> list[str]:
    """How each of `calls` calls at once ends."""
    one = (gateway.fetch("BTCUSDT", Interval.M1, START, START + 10 * MINUTE) for _ in range(calls))
    ends = await asyncio.gather(*one, return_exceptions=True)
    return ["bars" if isinstance(end, pa.Table) else type(end).__name__ for end in ends]


async def test_the_gateway_never_uses_more_weight_than_its_budget(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(80, 60.0),)))
    assert sorted(await asked_through(gateway, 60)) == ["RateLimited"] * 20 + ["bars"] * 40
    assert venue.weight.used == 80
    assert len(venue.asked) == 40


async def test_the_gateway_leaves_room_for_what_others_use_of_our_address(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(80, 60.0),)))
    venue.weight.count(50, to_ms(clock.now()))
    ends = [await asked_through(gateway, 1) for _ in range(20)]
    assert ends == [["bars"]] * 15 + [["RateLimited"]] * 5
    assert venue.weight.used == 80


async def test_the_gateway_asks_nothing_before_a_ban_is_over(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    message = f"Way too much request weight used; IP banned until {to_ms(NOW + timedelta(minutes=5))}."
    venue.faults.append(faults.says(418, {"code": -1003, "msg": message}, retry_after="120"))
    gateway = Gateway(provider, clock)
    for _ in range(2):
        with pytest.raises(RateLimited):
            await gateway.fetch("BTCUSDT", Interval.M1, START, NOW)
        clock.advance(200)
    assert len(venue.asked) == 1


async def test_the_firewall_makes_us_cool_down_and_after_three_times_leave(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    venue.faults.append(faults.html(403))
    with pytest.raises(RateLimited) as caught:
        await minutes(provider, 0, 10)
    assert caught.value.retry_at == clock.now() + timedelta(minutes=2)
    assert len(await minutes(provider, 0, 10)) == 10  # which starts the count again
    venue.faults.extend([faults.html(403)] * 3)
    for expected in (RateLimited, RateLimited, Restricted):
        with pytest.raises(expected):
            await minutes(provider, 0, 10)


async def test_a_location_that_is_not_served_is_told(provider: BinanceProvider, venue: Binance) -> None:
    message = "Service unavailable from a restricted location according to 'b. Eligibility' in the terms."
    venue.faults.append(faults.says(451, {"code": 0, "msg": message}))
    with pytest.raises(Restricted, match="does not serve this location"):
        await minutes(provider, 0, 10)


async def test_no_answer_in_time_is_a_failure(url: str, clock: FakeClock, venue: Binance) -> None:
    venue.faults.append(faults.hang)
    async with client(url, clock, timeout_s=0.3) as impatient:
        with pytest.raises(ProviderDown, match="answered nothing"):
            await minutes(impatient, 0, 10)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_fault_of_the_venue_is_a_failure_also_with_a_page_instead_of_json(
    provider: BinanceProvider, venue: Binance, status: int
) -> None:
    venue.faults.append(faults.html(status))
    with pytest.raises(ProviderDown, match=f"answered {status}"):
        await minutes(provider, 0, 10)


async def test_a_page_instead_of_json_is_malformed(provider: BinanceProvider, venue: Binance) -> None:
    venue.faults.append(faults.html())
    with pytest.raises(Malformed, match="answered HTML where JSON was expected"):
        await minutes(provider, 0, 10)


async def test_half_an_answer_is_malformed(provider: BinanceProvider, venue: Binance) -> None:
    venue.faults.append(faults.cut)
    with pytest.raises(Malformed, match="truncated"):
        await minutes(provider, 0, 10)


async def test_a_bomb_is_not_unpacked(provider: BinanceProvider, venue: Binance) -> None:
    venue.faults.append(faults.gzip_bomb(30_000_000))
    with pytest.raises(Malformed, match="larger than 20000000 bytes"):
        await minutes(provider, 0, 10)


async def test_the_venue_is_asked_again_after_an_outage(provider: BinanceProvider, venue: Binance) -> None:
    venue.outage = faults.html(503)
    for _ in range(3):
        with pytest.raises(ProviderDown):
            await minutes(provider, 0, 10)
    venue.outage = None
    assert len(await minutes(provider, 0, 10)) == 10


async def test_a_key_goes_into_its_header_and_nowhere_else(
    url: str, clock: FakeClock, venue: Binance
) -> None:
    echo = {"code": -2015, "msg": f"Invalid API-key {KEY}, IP, or permissions for action."}
    venue.faults.append(faults.says(401, echo))
    async with client(url, clock, api_key=KEY) as provider:
        with pytest.raises(Unauthorized) as caught:
            await minutes(provider, 0, 10)
    assert venue.asked[0].headers["x-mbx-apikey"] == KEY
    assert KEY not in str(venue.asked[0].params)
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


async def test_without_a_key_none_is_sent(provider: BinanceProvider, venue: Binance) -> None:
    await minutes(provider, 0, 10)
    assert "x-mbx-apikey" not in venue.asked[0].headers


async def test_a_quote_is_the_last_price(provider: BinanceProvider) -> None:
    assert isinstance(provider, Quoting)
    assert await provider.quote("BTCUSDT") == Quote("BTCUSDT", 101.21, NOW, "binance")


async def test_the_instruments_are_asked_of_the_venue_and_none_is_known_before(
    provider: BinanceProvider, venue: Binance
) -> None:
    venue.list_symbol("OMGBUSD", "OMG", "BUSD", status="BREAK")
    venue.list_symbol("BTCNGN", "BTC", "NGN", spot=False)
    assert provider.instruments() == []
    found = await provider.list_instruments()
    assert [(one.symbol, one.currency, one.active) for one in found] == [
        ("BTCUSDT", "USDT", True),
        ("OMGBUSD", "BUSD", False),
    ]
    assert venue.asked[0].params == {"showPermissionSets": "false"}


async def test_the_limits_are_those_that_the_venue_tells(provider: BinanceProvider, venue: Binance) -> None:
    venue.weight.limit = 1_200
    assert await provider.limits() == (Window(1_200, 60.0),)


async def test_the_usage_is_offered_to_the_gateway(provider: BinanceProvider) -> None:
    assert isinstance(provider, Metered)


async def test_it_asks_the_real_venue_over_tls_unless_told_otherwise() -> None:
    assert BASE_URL == "https://data-api.binance.vision"
    await BinanceProvider().close()


async def test_the_budget_is_narrowed_to_the_limits_that_the_venue_tells(
    provider: BinanceProvider, venue: Binance, clock: FakeClock
) -> None:
    venue.weight.limit = 1_200  # as it was until 2023
    gateway = Gateway(provider, clock, plans.policy("binance", {}))
    await gateway.learn_limits()
    assert gateway.stats().budget_left == [WindowLeft(limit=960, seconds=60.0, left=940)]
    assert [asked.path for asked in venue.asked] == ["/api/v3/exchangeInfo"]
