"""Binance refuses, limits, bans and fails, on loopback; and what else than bars it tells."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

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
from tests.integration.providers.binance.asking import MINUTE, NOW, START, client, minutes
from tests.services import faults
from tests.services.binance import Binance, to_ms

KEY = "q3Jb7wVtE9xLm2"


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


@pytest.mark.parametrize(
    "document",
    [
        {"note": KEY},
        [["x" * 60, KEY]],  # a complaint that quotes it is cut inside of the key
        {"symbol": KEY, "price": "1.0"},
        {"symbols": [{"symbol": KEY}], "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "limit": KEY}]},
        {"symbols": 1, "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "limit": KEY, "interval": KEY}]},
    ],
)
async def test_a_key_that_is_echoed_where_data_should_be_is_not_told(
    url: str, clock: FakeClock, venue: Binance, document: object
) -> None:
    async with client(url, clock, api_key=KEY) as provider:
        for ask in (
            lambda: minutes(provider, 0, 10),
            lambda: provider.quote("BTCUSDT"),
            provider.limits,
            provider.list_instruments,
        ):
            venue.faults.append(faults.says(200, document))
            with pytest.raises(Malformed) as caught:
                await ask()
            assert KEY[:6] not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


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
