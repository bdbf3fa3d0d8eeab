"""The client of Alpha Vantage against a server that speaks its protocol, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from starlette.types import ASGIApp

from cluster.clock import FakeClock
from cluster.errors import (
    FinSightError,
    InputError,
    Interrupted,
    InvalidSymbol,
    Malformed,
    NotEntitled,
    OutOfHorizon,
    ProviderDown,
    RateLimited,
)
from cluster.market import bars
from cluster.market.intervals import Interval
from cluster.providers import plans
from cluster.providers.alpha_vantage import BASE_URL, AlphaVantageProvider
from cluster.providers.budget import Window
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.providers.protocol import Metered, Quote, Quoting
from tests.conformance.test_bar_providers import BarProviderTests
from tests.integration.providers.keyed.service_calls import NOW, KeyedServiceTests, closed_after, utc
from tests.services import alpha_vantage, faults
from tests.services.alpha_vantage import AlphaVantage

ROW = ("10.0000", "12.0000", "9.0000", "11.0000", "100")
KEY = "Q7WKEYOFTESTS"


@pytest.fixture
def service(clock: FakeClock) -> AlphaVantage:
    """MSFT with two days of 15-minute bars in May and in June, extended hours included."""
    service = AlphaVantage(now=clock.now, key=KEY)
    for day in ("2024-05-31", "2024-06-03"):
        service.fill("MSFT", "15min", day)
    return service


@pytest.fixture
def url(service: AlphaVantage) -> Iterator[str]:
    with alpha_vantage.running(service) as url:
        yield url


@pytest.fixture
async def provider(url: str, clock: FakeClock) -> AsyncIterator[AlphaVantageProvider]:
    async with closed_after(AlphaVantageProvider(url, KEY, clock.now)) as provider:
        yield provider


async def quarters(provider: AlphaVantageProvider, start: str, end: str, symbol: str = "MSFT") -> pa.Table:
    return await provider.bars(symbol, Interval.M15, utc(start), utc(end))


def test_it_speaks_to_the_service_itself_unless_told_otherwise() -> None:
    assert BASE_URL == "https://www.alphavantage.co"


def test_it_answers_prices_and_is_not_told_what_is_used(clock: FakeClock) -> None:
    provider = AlphaVantageProvider(BASE_URL, KEY, clock.now)
    assert isinstance(provider, Quoting)
    assert not isinstance(provider, Metered)


async def test_a_month_is_asked_for_with_every_unwanted_default_told(
    provider: AlphaVantageProvider, service: AlphaVantage
) -> None:
    await quarters(provider, "2024-06-03 13:30", "2024-06-03 20:00")
    assert service.asked == [
        {
            "function": "TIME_SERIES_INTRADAY", "symbol": "MSFT", "interval": "15min", "month": "2024-06",
            "outputsize": "full", "adjusted": "false", "extended_hours": "false", "datatype": "json",
            "apikey": KEY,
        }
    ]  # fmt: skip


async def test_bars_are_raw_and_of_regular_hours(provider: AlphaVantageProvider) -> None:
    table = await quarters(provider, "2024-06-03 00:00", "2024-06-04 00:00")
    assert table.num_rows == 26
    assert [table["ts"][row].as_py() for row in (0, 25)] == [utc("2024-06-03 13:30"), utc("2024-06-03 19:45")]
    assert (
        table["open"][0].as_py() == 100.22
    )  # the 22nd quarter of an hour after 04:00, undivided by the split


@pytest.mark.parametrize("labels", ["start", "end"])
async def test_labels_of_either_end_give_the_same_bars(
    provider: AlphaVantageProvider, service: AlphaVantage, labels: str
) -> None:
    service.labels = "end" if labels == "end" else "start"
    table = await quarters(provider, "2024-06-03 13:30", "2024-06-03 14:00")
    assert table["ts"].to_pylist() == [utc("2024-06-03 13:30"), utc("2024-06-03 13:45")]
    assert table["open"].to_pylist() == [100.22, 100.23]


async def test_the_month_is_that_of_new_york(provider: AlphaVantageProvider, service: AlphaVantage) -> None:
    """From Friday's last bar in May to Monday in June; the weekend between is not asked for."""
    may = await quarters(provider, "2024-05-31 19:45", "2024-06-04 00:00")
    assert may["ts"].to_pylist() == [utc("2024-05-31 19:45")]
    assert service.asked[0]["month"] == "2024-05"


async def test_the_gateway_gets_a_range_over_two_months_in_two_calls_a_second_apart(
    url: str, service: AlphaVantage, clock: FakeClock
) -> None:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    async with closed_after(AlphaVantageProvider(url, KEY, clock.now)) as provider:
        gateway = Gateway(provider, clock, plans.policy("alpha_vantage", {}), sleep=sleep)
        table = await gateway.fetch("MSFT", Interval.M15, utc("2024-05-31 13:30"), utc("2024-06-03 20:00"))
    assert table.num_rows == 52
    assert [asked["month"] for asked in service.asked] == ["2024-05", "2024-06"]


async def test_a_month_without_bars_does_not_hide_the_next_one(
    provider: AlphaVantageProvider, service: AlphaVantage
) -> None:
    service.quota = (10, 25)
    table = await quarters(provider, "2024-04-01 00:00", "2024-06-01 00:00")
    assert table["ts"][0].as_py() == utc("2024-05-31 13:30")
    assert [asked["month"] for asked in service.asked] == ["2024-04", "2024-05"]


async def test_every_month_is_taken_out_of_the_budget_the_empty_ones_too(
    provider: AlphaVantageProvider, service: AlphaVantage, clock: FakeClock
) -> None:
    service.put_bar("MSFT", "15min", "2024-02-28 09:30", ROW)
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(limit=3, seconds=86_400),)))
    service.quota = (10, 25)
    with pytest.raises(Interrupted) as part:  # March and April are empty, and May is not paid for
        await gateway.fetch("MSFT", Interval.M15, utc("2024-02-01 00:00"), utc("2024-06-04 00:00"))
    assert len(service.asked) == 3
    assert part.value.bars["ts"].to_pylist() == [utc("2024-02-28 14:30")]
    assert part.value.until == utc("2024-05-01 04:00")  # New York's midnight
    assert isinstance(part.value.cause, RateLimited)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-06-01 00:00", "2024-06-03 13:30"),  # a weekend
        ("2024-06-03 19:46", "2024-06-03 20:00"),  # after the open of the last bar
        ("2024-06-10 13:30", "2024-06-11 00:00"),  # today, before the open
        ("1999-01-04 00:00", "1999-12-31 00:00"),  # before there was anything
    ],
)
async def test_nothing_is_asked_for_where_no_bar_can_open(
    provider: AlphaVantageProvider, service: AlphaVantage, start: str, end: str
) -> None:
    assert (await quarters(provider, start, end)).equals(bars.empty())
    assert service.asked == []


async def test_the_rest_of_a_month_comes_out_of_the_answer_before_for_a_minute(
    provider: AlphaVantageProvider, service: AlphaVantage, clock: FakeClock
) -> None:
    for seconds, calls in ((0, 1), (59, 1), (1, 2)):
        clock.advance(seconds)
        await quarters(provider, "2024-06-03 13:30", "2024-06-03 14:00")
        assert len(service.asked) == calls


async def test_an_interval_that_it_has_not_is_the_callers_fault(provider: AlphaVantageProvider) -> None:
    with pytest.raises(InputError, match="asked for 1h"):
        await provider.bars("MSFT", Interval.H1, NOW - timedelta(days=1), NOW)


@pytest.mark.parametrize("symbol", ["^GSPC", "EURUSD=X", "BTC-USD", "TSCO.LON"])
async def test_what_is_no_us_stock_costs_no_call(
    provider: AlphaVantageProvider, service: AlphaVantage, symbol: str
) -> None:
    with pytest.raises(InvalidSymbol):
        await quarters(provider, "2024-06-03 13:30", "2024-06-03 20:00", symbol)
    with pytest.raises(InvalidSymbol):
        await provider.quote(symbol)
    assert service.asked == []


async def test_a_symbol_that_it_does_not_know_is_invalid(provider: AlphaVantageProvider) -> None:
    with pytest.raises(InvalidSymbol, match="'NOPE'"):
        await quarters(provider, "2024-06-03 13:30", "2024-06-03 20:00", "NOPE")


class TestDaily:
    @pytest.fixture
    def service(self, clock: FakeClock) -> AlphaVantage:
        service = AlphaVantage(now=clock.now, key=KEY)
        for day in ("2023-06-12", "2024-06-06", "2024-06-07"):
            service.put_day("MSFT", day, ROW)
        return service

    async def days(
        self, provider: AlphaVantageProvider, start: str, end: str = "2024-06-10"
    ) -> list[datetime]:
        table = await provider.bars("MSFT", Interval.D1, utc(start), utc(end))
        opens: list[datetime] = table["ts"].to_pylist()
        return opens

    async def test_a_free_plan_asks_for_the_latest_days(
        self, provider: AlphaVantageProvider, service: AlphaVantage
    ) -> None:
        expected = [utc("2024-06-06 13:30"), utc("2024-06-07 13:30")]
        assert await self.days(provider, "2024-06-01") == expected
        assert service.asked[0]["outputsize"] == "compact"

    async def test_a_free_plan_does_not_ask_for_days_before_the_latest_hundred(
        self, provider: AlphaVantageProvider, service: AlphaVantage
    ) -> None:
        with pytest.raises(OutOfHorizon, match="has the latest 100 days of MSFT only") as refusal:
            await self.days(provider, "2023-06-01", "2023-07-01")
        assert refusal.value.earliest == utc("2024-01-17 14:30")  # a hundred sessions before June 10
        assert service.asked == []

    async def test_a_premium_plan_asks_for_all_days_when_the_latest_hundred_do_not_suffice(
        self, url: str, clock: FakeClock, service: AlphaVantage
    ) -> None:
        service.premium, service.quota = True, (10, 25)
        async with closed_after(AlphaVantageProvider(url, KEY, clock.now, premium=True)) as provider:
            assert await self.days(provider, "2023-06-01", "2023-07-01") == [utc("2023-06-12 13:30")]
            assert await self.days(provider, "2024-06-07") == [utc("2024-06-07 13:30")]
            assert [asked["outputsize"] for asked in service.asked] == ["full", "compact"]

    async def test_a_plan_that_is_not_premium_after_all_is_not_entitled(
        self, url: str, clock: FakeClock
    ) -> None:
        async with closed_after(AlphaVantageProvider(url, KEY, clock.now, premium=True)) as provider:
            with pytest.raises(NotEntitled, match="premium"):
                await self.days(provider, "2023-06-01", "2023-07-01")

    async def test_the_price_is_that_of_the_latest_day(self, provider: AlphaVantageProvider) -> None:
        assert await provider.quote("MSFT") == Quote("MSFT", 11.0, utc("2024-06-07 20:00"), "alpha_vantage")

    async def test_the_price_of_an_unknown_symbol_is_none(self, provider: AlphaVantageProvider) -> None:
        with pytest.raises(InvalidSymbol, match="'NOPE'"):
            await provider.quote("NOPE")


class TestLimits:
    async def test_two_calls_within_a_second_are_one_too_many(
        self, provider: AlphaVantageProvider, clock: FakeClock
    ) -> None:
        await quarters(provider, "2024-06-03 13:30", "2024-06-03 20:00")
        with pytest.raises(RateLimited, match="within a second") as limited:
            await quarters(provider, "2024-05-31 13:30", "2024-05-31 20:00")
        clock.advance((limited.value.retry_at - clock.now()).total_seconds())
        assert (await quarters(provider, "2024-05-31 13:30", "2024-05-31 20:00")).num_rows == 26

    async def test_a_used_up_day_ends_at_midnight_of_new_york(
        self, provider: AlphaVantageProvider, service: AlphaVantage, clock: FakeClock
    ) -> None:
        service.quota = (1, 1)
        await quarters(provider, "2024-06-03 13:30", "2024-06-03 20:00")
        clock.advance(60)
        with pytest.raises(RateLimited, match="of the day") as limited:
            await quarters(provider, "2024-06-03 13:30", "2024-06-03 20:00")
        assert limited.value.retry_at == utc("2024-06-11 04:00")
        clock.advance((limited.value.retry_at - clock.now()).total_seconds())
        assert (await quarters(provider, "2024-06-03 13:30", "2024-06-03 20:00")).num_rows == 26

    async def test_a_limit_is_no_failure_of_the_provider(
        self, provider: AlphaVantageProvider, service: AlphaVantage, clock: FakeClock
    ) -> None:
        service.quota = (1, 0)
        gateway = Gateway(provider, clock)
        for _ in range(3):
            with pytest.raises(RateLimited):
                await gateway.fetch("MSFT", Interval.M15, utc("2024-06-03 13:30"), utc("2024-06-03 20:00"))
        stats = gateway.stats()
        assert (stats.state, stats.error_rate, stats.health_score) == ("CLOSED", 0.0, 1.0)
        assert len(service.asked) == 1  # then the gateway knows


class TestKeyAndFaults(KeyedServiceTests):
    symbol = "MSFT"
    key = KEY
    setting = "ALPHA_VANTAGE_API_KEY"

    def client(self, url: str, clock: FakeClock, key: str, timeout_s: float = 20.0) -> AlphaVantageProvider:
        return AlphaVantageProvider(url, key, clock.now, timeout_s=timeout_s)

    @pytest.fixture(
        params=[
            faults.says(200, {"Information": alpha_vantage.DAILY.format(key=KEY)}),
            faults.says(200, {"Information": f"A new text about {KEY}, of unknown meaning"}),
            faults.says(200, {"Meta Data": {"2. Symbol": KEY}, "Time Series (15min)": {}}),
            faults.says(200, f"only {KEY}"),
            faults.says(400, {"apikey": KEY}),
            faults.says(503, {"apikey": KEY}),
            faults.says(429, {"apikey": KEY}),
            faults.says(301, {}, location=f"/query?apikey={KEY}"),
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
            (faults.html(503), ProviderDown),
            (faults.says(502, {}), ProviderDown),
            (faults.says(403, {}), ProviderDown),
            (faults.says(429, {}, retry_after="7"), RateLimited),
            (faults.gzip_bomb(30_000_000), Malformed),
            (faults.cut, Malformed),
        ]
    )
    def wrong(self, request: pytest.FixtureRequest) -> tuple[ASGIApp, type[FinSightError]]:
        told: tuple[ASGIApp, type[FinSightError]] = request.param
        return told


class TestConformance(BarProviderTests):
    symbol = "MSFT"
    unknown_symbol = "NOPE"
    start = datetime(2024, 6, 3, tzinfo=UTC)
    end = datetime(2024, 6, 5, tzinfo=UTC)

    @pytest.fixture
    def service(self, clock: FakeClock) -> AlphaVantage:
        service = AlphaVantage(key=KEY, premium=True, quota=(10_000, 10_000))
        for day in ("2024-06-03", "2024-06-04"):
            service.put_day("MSFT", day, ROW)
            for interval in ("1min", "5min", "15min", "30min"):
                service.fill("MSFT", interval, day)
        return service

    @pytest.fixture
    async def provider(self, url: str) -> AsyncIterator[AlphaVantageProvider]:
        async with closed_after(AlphaVantageProvider(url, KEY, premium=True)) as provider:
            yield provider
