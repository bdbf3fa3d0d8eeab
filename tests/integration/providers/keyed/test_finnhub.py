"""The client of Finnhub against a server that speaks its protocol, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pyarrow as pa
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from cluster.clock import FakeClock
from cluster.errors import (
    FinSightError,
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
from cluster.providers import finnhub_wire, plans
from cluster.providers.budget import Window
from cluster.providers.finnhub import BASE_URL, FinnhubProvider
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.providers.protocol import BarProvider, BarSource, Metered, Quote, Quoting
from cluster.providers.router import Router, Want
from tests.conformance.test_bar_providers import BarProviderTests
from tests.integration.providers.keyed.service_calls import NOW, KeyedServiceTests, closed_after, utc
from tests.services import faults, finnhub
from tests.services.finnhub import Finnhub
from tests.unit.providers.scripted import Scripted, minutes

CANDLE = (10.0, 12.0, 9.0, 11.0, 100.5)
KEY = "c9f1nnhubk3y0ft3sts"


@pytest.fixture
def service(clock: FakeClock) -> Finnhub:
    """AAPL with 15-minute candles of one day around the clock, and with a price."""
    service = Finnhub(now=clock.now, key=KEY)
    service.fill("AAPL", "15", utc("2024-06-03 00:00"), utc("2024-06-04 00:00"))
    service.quotes["AAPL"] = {
        "c": 261.74, "d": 2.29, "dp": 0.8826, "h": 263.31, "l": 260.68, "o": 261.07, "pc": 259.45,
        "t": 1582641000,
    }  # fmt: skip
    return service


@pytest.fixture
def url(service: Finnhub) -> Iterator[str]:
    with finnhub.running(service) as url:
        yield url


@pytest.fixture
async def provider(url: str, clock: FakeClock) -> AsyncIterator[FinnhubProvider]:
    async with closed_after(FinnhubProvider(url, KEY, clock.now)) as provider:
        yield provider


async def quarters(provider: FinnhubProvider, start: str, end: str, symbol: str = "AAPL") -> pa.Table:
    return await provider.bars(symbol, Interval.M15, utc(start), utc(end))


def test_it_speaks_to_the_service_itself_unless_told_otherwise() -> None:
    assert BASE_URL == "https://finnhub.io/api/v1"


async def test_a_range_without_its_end_is_asked_for_with_the_key_in_a_header(
    provider: FinnhubProvider, service: Finnhub
) -> None:
    table = await quarters(provider, "2024-06-03 13:30", "2024-06-03 14:00")
    assert table["ts"].to_pylist() == [utc("2024-06-03 13:30"), utc("2024-06-03 13:45")]
    assert table["open"].to_pylist() == [100.54, 100.55]
    (asked,) = service.asked
    assert (asked.path, asked.headers["x-finnhub-token"]) == ("/api/v1/stock/candle", KEY)
    assert asked.params == {"symbol": "AAPL", "resolution": "15", "from": "1717421400", "to": "1717423199"}


async def test_bars_are_of_regular_hours(provider: FinnhubProvider) -> None:
    table = await quarters(provider, "2024-06-03 00:00", "2024-06-04 00:00")
    assert [table["ts"][row].as_py() for row in (0, -1 + table.num_rows)] == [
        utc("2024-06-03 13:30"), utc("2024-06-03 19:45")
    ]  # fmt: skip
    assert table.num_rows == 26


@pytest.mark.parametrize(
    ("start", "end", "midnight", "session_open"),
    [
        ("2024-06-03 13:30", "2024-06-03 13:31", "2024-06-03 04:00", "2024-06-03 13:30"),
        ("2024-01-16 00:00", "2024-01-17 00:00", "2024-01-16 05:00", "2024-01-16 14:30"),
    ],
)
async def test_a_day_is_found_by_its_open_in_summer_and_in_winter(
    provider: FinnhubProvider, service: Finnhub, start: str, end: str, midnight: str, session_open: str
) -> None:
    for day in (-1, 0, 1):  # the days around it are not in the range
        service.put("AAPL", "D", utc(midnight) + timedelta(days=day), CANDLE)
    table = await provider.bars("AAPL", Interval.D1, utc(start), utc(end))
    assert table["ts"].to_pylist() == [utc(session_open)]
    assert table["volume"].to_pylist() == [100.5]


async def test_the_gateway_gets_three_months_of_minutes_although_one_answer_has_a_month(
    provider: FinnhubProvider, service: Finnhub, clock: FakeClock
) -> None:
    for day in ("2024-02-15", "2024-03-28", "2024-05-01"):
        service.fill("AAPL", "1", utc(f"{day} 12:00"), utc(f"{day} 20:00"))
    gateway = Gateway(provider, clock)
    table = await gateway.fetch("AAPL", Interval.M1, utc("2024-02-01 00:00"), utc("2024-05-02 00:00"))
    # February is winter time: of 12:00 to 20:00 only 14:30 to 20:00 is in the session.
    assert table.num_rows == 330 + 390 + 390
    spans = [(int(asked.params["to"]) - int(asked.params["from"])) / 86_400 for asked in service.asked]
    assert max(spans) <= 30


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-06-01 00:00", "2024-06-03 13:30"),  # a weekend
        ("2024-06-03 19:46", "2024-06-03 20:00"),  # after the open of the last bar
        ("2024-06-10 13:30", "2024-06-11 00:00"),  # today, before the open
    ],
)
async def test_nothing_is_asked_for_where_no_bar_can_open(
    provider: FinnhubProvider, service: Finnhub, start: str, end: str
) -> None:
    assert (await quarters(provider, start, end)).equals(bars.empty())
    assert service.asked == []


async def test_no_data_is_neither_an_error_nor_a_failure(
    provider: FinnhubProvider, service: Finnhub, clock: FakeClock
) -> None:
    gateway = Gateway(provider, clock)
    table = await gateway.fetch("AAPL", Interval.M15, utc("2024-06-04 13:30"), utc("2024-06-04 20:00"))
    assert table.equals(bars.empty())
    assert len(service.asked) == 1
    assert (gateway.stats().outcomes, gateway.stats().state) == ({"no_data": 1}, "CLOSED")


async def test_one_share_outside_the_plan_takes_neither_bars_nor_prices_away_from_others(
    provider: FinnhubProvider, service: Finnhub, clock: FakeClock
) -> None:
    gateway = Gateway(provider, clock)
    start, end = utc("2024-06-03 13:30"), utc("2024-06-03 14:00")
    for call in (partial(gateway.fetch, "OTCM", Interval.M15, start, end), partial(gateway.quote, "OTCM")):
        service.faults.append(faults.says(403, {"error": finnhub.NO_ACCESS}))
        for _ in range(2):
            with pytest.raises(NotEntitled):
                await call()
    assert len(service.asked) == 2
    assert (await gateway.fetch("AAPL", Interval.M15, start, end)).num_rows == 2
    assert (await gateway.quote("AAPL")).price == 261.74


async def test_a_share_of_another_exchange_costs_no_call_and_goes_to_the_next_provider(
    provider: FinnhubProvider, service: Finnhub, clock: FakeClock
) -> None:
    first = Gateway(provider, clock, GatewayPolicy(budget=(Window(limit=100, seconds=86_400),)))
    router = Router({"finnhub": first, "scripted": Gateway(Scripted(minutes(0)), clock)}, clock)
    want = Want(
        "VOD.L", Interval.M1, utc("2024-06-03 10:00"), utc("2024-06-03 10:10"), "equity", began_with="finnhub"
    )
    asked: list[BarSource] = []

    async def ask(source: BarSource) -> pa.Table:
        asked.append(source)
        return await source.fetch(want.symbol, want.interval, want.start, want.end)

    name, table = await router.fetch(want, ask)
    assert (name, table.num_rows, len(asked), service.asked) == ("scripted", 1, 2, [])
    assert first.stats().budget_left[0].left == 100
    with pytest.raises(InvalidSymbol):
        await first.quote("VOD.L")
    assert first.stats().budget_left[0].left == 100
    with pytest.raises(NotEntitled, match=r"no provider gives 1m bars of VOD\.L: finnhub answers US stocks"):
        await Router({"finnhub": first}, clock).fetch(want, ask)


async def test_an_interval_that_it_has_not_is_the_callers_fault(provider: FinnhubProvider) -> None:
    with pytest.raises(InputError, match="asked for 1h"):
        await provider.bars("AAPL", Interval.H1, NOW - timedelta(days=5), NOW)


class TestDays:
    """Its days come divided by all splits up to now; what is stored is what was traded."""

    @pytest.fixture
    def service(self, clock: FakeClock) -> Finnhub:
        """AAPL around its split of 4:1 on 2020-08-31, NVDA around those of 4:1 in 2021 and 10:1 in 2024."""
        service = Finnhub(now=clock.now, key=KEY)
        service.put("AAPL", "D", utc("2020-08-28 04:00"), flat(499.23 / 4))
        service.put("AAPL", "D", utc("2020-08-31 04:00"), flat(129.04))
        service.splits["AAPL"] = {"2014-06-09": 7, "2020-08-31": 4}
        service.put("NVDA", "D", utc("2021-07-19 04:00"), flat(18.7798))  # 751.19, told with four decimals
        service.put("NVDA", "D", utc("2021-07-20 04:00"), flat(18.612))
        service.splits["NVDA"] = {"2021-07-20": 4, "2024-06-10": 10}
        return service

    async def days(self, source: FinnhubProvider | Gateway, symbol: str, start: str, end: str) -> pa.Table:
        ask = source.fetch if isinstance(source, Gateway) else source.bars
        return await ask(symbol, Interval.D1, utc(start), utc(end))

    async def test_they_are_told_as_they_were_traded_and_volume_before_a_split_is_unknown(
        self, provider: FinnhubProvider
    ) -> None:
        apple = await self.days(provider, "AAPL", "2020-08-28", "2020-09-01")
        assert apple["close"].to_pylist() == [499.23, 129.04]
        assert apple["volume"].to_pylist() == [None, 100.0]
        nvidia = await self.days(provider, "NVDA", "2021-07-19", "2021-07-21")
        assert nvidia["close"].to_pylist() == [751.19, 186.12]

    async def test_a_split_to_come_is_not_undone(self, provider: FinnhubProvider, service: Finnhub) -> None:
        service.splits["AAPL"] = {"2024-06-11": 2}
        table = await self.days(provider, "AAPL", "2020-08-31", "2020-09-01")
        assert table["close"].to_pylist() == [129.04]

    async def test_the_splits_are_asked_for_once_an_hour_and_paid_for(
        self, provider: FinnhubProvider, service: Finnhub, clock: FakeClock
    ) -> None:
        gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(limit=100, seconds=86_400),)))
        for _ in range(2):
            await self.days(gateway, "AAPL", "2020-08-28", "2020-09-01")
        paths = [asked.path.removeprefix("/api/v1/stock/") for asked in service.asked]
        assert paths == ["candle", "split", "candle"]
        assert gateway.stats().budget_left[0].left == 97
        clock.advance(3_601)
        await self.days(gateway, "AAPL", "2020-08-28", "2020-09-01")
        assert len(service.asked) == 5

    async def test_a_plan_without_splits_has_no_days_and_still_minutes(
        self, provider: FinnhubProvider, service: Finnhub, clock: FakeClock
    ) -> None:
        service.tells_splits = False
        service.fill("AAPL", "15", utc("2024-06-03 13:30"), utc("2024-06-03 14:00"))
        gateway = Gateway(provider, clock)
        for symbol in ("AAPL", "NVDA", "MSFT"):
            service.put(symbol, "D", utc("2020-08-28 04:00"), flat(100.0))
            with pytest.raises(NotEntitled):
                await self.days(gateway, symbol, "2020-08-28", "2020-09-01")
        assert Interval.D1 not in (await gateway.standing()).offer.intervals
        start, end = utc("2024-06-03 13:30"), utc("2024-06-03 14:00")
        assert (await gateway.fetch("AAPL", Interval.M15, start, end)).num_rows == 2

    @pytest.mark.parametrize(
        "told",
        [
            {"error": "?"},
            [{"symbol": "AAPL"}],
            [{"date": "2020-08-31", "fromFactor": 0, "toFactor": 4}],
            [{"date": "2020-08-31", "fromFactor": 1, "toFactor": 0}],
            [{"date": "today", "fromFactor": 1, "toFactor": 4}],
        ],
    )
    def test_splits_of_another_shape_are_malformed(self, told: object) -> None:
        with pytest.raises(Malformed, match="split"):
            finnhub_wire.parse_splits(told, "AAPL")


def flat(price: float) -> tuple[float, float, float, float, float]:
    """A candle whose four prices are the same."""
    return (price, price, price, price, 100.0)


class TestQuote:
    async def test_the_price_carries_the_time_of_its_last_trade(self, provider: FinnhubProvider) -> None:
        assert isinstance(provider, Quoting)
        assert await provider.quote("AAPL") == Quote("AAPL", 261.74, utc("2020-02-25 14:30"), "finnhub")

    async def test_an_unknown_symbol_has_no_price_and_above_all_not_zero(
        self, provider: FinnhubProvider
    ) -> None:
        with pytest.raises(InvalidSymbol, match="'NOPE'"):
            await provider.quote("NOPE")


class TestLimits:
    async def test_a_used_up_minute_ends_when_the_answer_says(
        self, provider: FinnhubProvider, service: Finnhub, clock: FakeClock
    ) -> None:
        service.a_minute = 1
        await provider.quote("AAPL")
        clock.advance(15)
        with pytest.raises(RateLimited) as limited:
            await provider.quote("AAPL")
        assert limited.value.retry_at == NOW + timedelta(minutes=1)
        assert provider.usage() == {"1m": 1}
        clock.advance(45)
        assert (await provider.quote("AAPL")).price == 261.74

    async def test_the_gateway_counts_what_others_with_the_same_key_have_used(
        self, provider: FinnhubProvider, url: str, clock: FakeClock
    ) -> None:
        assert isinstance(provider, Metered)
        assert provider.usage() == {}
        async with closed_after(FinnhubProvider(url, KEY, clock.now)) as other:
            for _ in range(20):
                await other.quote("AAPL")
        gateway = Gateway(provider, clock, plans.policy("finnhub", {}))
        await gateway.fetch("AAPL", Interval.M15, utc("2024-06-03 19:45"), utc("2024-06-03 20:00"))
        assert provider.usage() == {"1m": 21}
        (minute,) = (window for window in gateway.stats().budget_left if window.seconds == 60)
        assert minute.left <= 60 - 21


class TestEntitlement:
    async def test_a_plan_without_candles_leaves_prices_and_health_as_they_are(
        self, provider: FinnhubProvider, service: Finnhub, clock: FakeClock
    ) -> None:
        service.premium = False
        gateway = Gateway(provider, clock)
        for _ in range(3):
            with pytest.raises(NotEntitled):
                await gateway.fetch("AAPL", Interval.M15, utc("2024-06-03 13:30"), utc("2024-06-03 20:00"))
        assert len(service.asked) == 1  # then the gateway knows for a day
        assert (gateway.stats().state, gateway.stats().health_score) == ("CLOSED", 1.0)
        assert (await provider.quote("AAPL")).price == 261.74

    async def test_429_for_a_key_that_got_lost_is_no_rate_limit(
        self, provider: FinnhubProvider, service: Finnhub
    ) -> None:
        service.faults.append(PlainTextResponse(finnhub.NO_TOKEN, 429))
        with pytest.raises(Unauthorized, match="FINNHUB_API_KEY"):
            await provider.quote("AAPL")


class TestKeyAndFaults(KeyedServiceTests):
    symbol = "AAPL"
    key = KEY
    setting = "FINNHUB_API_KEY"

    def client(self, url: str, clock: FakeClock, key: str, timeout_s: float = 20.0) -> FinnhubProvider:
        return FinnhubProvider(url, key, clock.now, timeout_s=timeout_s)

    @pytest.fixture(
        params=[
            faults.says(400, {"error": f"bad token {KEY}"}),
            faults.says(401, {"error": f"Invalid API key {KEY}"}),
            faults.says(403, {"error": f"{KEY} has no access"}),
            faults.says(429, {"error": f"limit of {KEY}"}),
            faults.says(503, {"error": KEY}),
            faults.says(200, {"s": KEY}),
            faults.says(200, KEY),
            faults.html(),
            faults.cut,
        ]
    )
    def leak(self, request: pytest.FixtureRequest) -> ASGIApp:
        told: ASGIApp = request.param
        return told

    @pytest.fixture(
        params=[
            (faults.html(), Malformed),
            (faults.html(403), ProviderDown),
            (faults.html(503), ProviderDown),
            (PlainTextResponse("Bad Gateway", 502), ProviderDown),
            (PlainTextResponse("OK"), Malformed),
            (faults.says(422, {"error": "Wrong resolution"}), InputError),
            (faults.says(429, {"error": "API limit reached."}, retry_after="7"), RateLimited),
            (faults.gzip_bomb(30_000_000), Malformed),
            (faults.cut, Malformed),
        ]
    )
    def wrong(self, request: pytest.FixtureRequest) -> tuple[ASGIApp, type[FinSightError]]:
        told: tuple[ASGIApp, type[FinSightError]] = request.param
        return told


class TestConformance(BarProviderTests):
    symbol = "AAPL"
    unknown_symbol = "NOPE"
    start = datetime(2024, 6, 3, tzinfo=UTC)
    end = datetime(2024, 6, 5, tzinfo=UTC)

    @pytest.fixture
    def service(self, clock: FakeClock) -> Finnhub:
        service = Finnhub(key=KEY, a_minute=10_000)
        for day in ("2024-06-03", "2024-06-04"):
            service.put("AAPL", "D", utc(f"{day} 04:00"), CANDLE)
            for resolution in ("1", "5", "15", "30"):
                service.fill("AAPL", resolution, utc(f"{day} 08:00"), utc(f"{day} 23:00"))
        return service

    @pytest.fixture
    async def provider(self, url: str) -> AsyncIterator[FinnhubProvider]:
        async with closed_after(FinnhubProvider(url, KEY)) as provider:
            yield provider

    async def test_an_unknown_symbol_is_refused(self, provider: BarProvider) -> None:
        """Not here: for candles of an unknown symbol it answers `no_data`, as for a range without any."""
        table = await provider.bars(self.unknown_symbol, Interval.D1, self.start, self.end)
        assert table.equals(bars.empty())
