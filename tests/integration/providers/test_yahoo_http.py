"""The client of Yahoo against a server that speaks its protocol, on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from cluster.clock import FakeClock
from cluster.errors import (
    InputError,
    InvalidSymbol,
    Malformed,
    OutOfHorizon,
    ProviderDown,
    RateLimited,
    Restricted,
    Unauthorized,
)
from cluster.market.bars import rejected_of
from cluster.market.intervals import Interval
from cluster.providers.budget import Window
from cluster.providers.gateway import Gateway, GatewayPolicy
from cluster.providers.protocol import Quote, Quoting
from cluster.providers.yahoo import YahooProvider
from tests.services import faults, yahoo
from tests.services.yahoo import BITCOIN, LONDON, NEW_YORK, Yahoo, at, dividend, flat, split

NOW = datetime(2025, 6, 3, 20, 30, tzinfo=UTC)  # a Tuesday, half an hour after the close
KEY = "q3Jb7wVtE9xLm2"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def service(clock: FakeClock) -> Yahoo:
    service = Yahoo(now=clock.now)
    days = [
        flat("2025-05-30T13:30", 200.85),
        flat("2025-06-02T13:30", 201.7),
        flat("2025-06-03T13:30", 203.27),
    ]
    service.put("AAPL", "1d", days, {**NEW_YORK, "regularMarketTime": at("2025-06-03T20:00")})
    return service


@pytest.fixture
def url(service: Yahoo) -> Iterator[str]:
    with yahoo.running(service) as url:
        yield url


@asynccontextmanager
async def client(
    url: str, clock: FakeClock, key: str = "", timeout_s: float = 5.0
) -> AsyncIterator[YahooProvider]:
    made = YahooProvider(url, key, clock.now, jitter=lambda: 1.0, timeout_s=timeout_s)
    yield made
    await made.close()


@pytest.fixture
async def provider(url: str, clock: FakeClock) -> AsyncIterator[YahooProvider]:
    async with client(url, clock) as made:
        yield made


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def closes(table: pa.Table) -> dict[str, float]:
    return {f"{row['ts']:%m-%dT%H:%M}": row["close"] for row in table.to_pylist()}


async def daily(provider: YahooProvider, start: str = "2025-05-30", end: str = "2025-06-04") -> pa.Table:
    return await provider.bars("AAPL", Interval.D1, day(start), day(end))


async def test_bars_of_a_range_are_those_that_open_in_it(provider: YahooProvider) -> None:
    assert closes(await daily(provider)) == {
        "05-30T13:30": 200.85, "06-02T13:30": 201.7, "06-03T13:30": 203.27
    }  # fmt: skip
    part = await daily(provider, "2025-06-02", "2025-06-03T13:30")
    assert closes(part) == {"06-02T13:30": 201.7}


async def test_the_newest_day_is_final_when_a_later_reading_agrees(
    provider: YahooProvider, service: Yahoo, clock: FakeClock
) -> None:
    assert (await daily(provider))["is_final"].to_pylist() == [True, True, False]
    assert (await daily(provider))["is_final"].to_pylist() == [True, True, False]
    clock.advance(300)
    service.rows["AAPL", "1d"][-1] = flat("2025-06-03T13:30", 203.3)
    assert (await daily(provider))["is_final"].to_pylist() == [True, True, False]
    clock.advance(300)
    assert (await daily(provider))["is_final"].to_pylist() == [True, True, True]


async def test_an_old_range_is_told_as_it_was_traded_with_the_splits_since(
    provider: YahooProvider, service: Yahoo
) -> None:
    service.put(
        "AAPL", "1d", [flat("2020-08-27T13:30", 125.01, 400), flat("2020-08-28T13:30", 124.8075, 800)]
    )
    service.splits["AAPL"] = [split("2020-08-31T13:30", 4)]
    table = await daily(provider, "2020-08-27", "2020-08-29")
    assert closes(table) == {"08-27T13:30": 500.04, "08-28T13:30": 499.23}
    assert table["volume"].to_pylist() == [100, 200]
    await daily(provider, "2020-08-28", "2020-08-29")
    asked = [params["interval"] for _, params in service.asked]
    assert asked == ["1d", "1mo", "1d"]  # the splits are kept for an hour


async def test_the_call_for_the_splits_is_paid_for_and_each_window_of_minutes(
    provider: YahooProvider, service: Yahoo, clock: FakeClock
) -> None:
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(limit=100, seconds=86_400),)))
    service.put("AAPL", "1d", [flat("2020-08-27T13:30", 125.01), flat("2020-08-28T13:30", 124.81)])
    await gateway.fetch("AAPL", Interval.D1, day("2020-08-27"), day("2020-08-29"))
    assert len(service.asked) == 2
    assert gateway.stats().budget_left[0].left == 98
    await gateway.fetch("AAPL", Interval.M1, day("2025-05-06"), day("2025-06-04"))
    assert gateway.stats().budget_left[0].left == 100 - len(service.asked) == 93


async def test_recent_bars_bring_their_own_splits_and_cost_one_call(
    provider: YahooProvider, service: Yahoo
) -> None:
    service.put("AAPL", "1d", [flat("2025-06-02T13:30", 50), flat("2025-06-03T13:30", 51)])
    service.splits["AAPL"] = [split("2025-06-03T13:30", 4)]
    assert closes(await daily(provider)) == {"06-02T13:30": 200, "06-03T13:30": 51}
    assert len(service.asked) == 1


async def test_a_day_that_a_long_answer_lacks_is_asked_for_alone_before_it_is_a_hole(
    provider: YahooProvider, service: Yahoo, clock: FakeClock
) -> None:
    days = ["05-16", "05-19", "05-20", "05-21", "05-22", "05-23", "05-27", "05-28", "05-29", "05-30"]
    service.put("AAPL", "1d", [flat(f"2025-{day}T13:30", 200) for day in days])
    service.forgets = {at("2025-05-21T13:30"), at("2025-05-23T13:30")}
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(limit=100, seconds=86_400),)))
    table = await gateway.fetch("AAPL", Interval.D1, day("2025-05-16"), day("2025-05-31"))
    assert list(closes(table)) == [f"{day}T13:30" for day in days]
    asked = [params for _, params in service.asked]
    assert [params["interval"] for params in asked] == ["1d", "1mo", "1d"]  # the second for splits
    alone = asked[2]["period1"], asked[2]["period2"]
    assert alone == (str(at("2025-05-20T13:30")), str(at("2025-05-24T13:30") + 1))  # with a day around both
    assert gateway.stats().budget_left[0].left == 97


async def test_a_day_that_is_missing_when_asked_for_alone_is_a_hole_after_one_call_more(
    provider: YahooProvider, service: Yahoo, clock: FakeClock
) -> None:
    days = [flat("2025-05-28T13:30", 200), flat("2025-05-29T13:30", None), flat("2025-05-30T13:30", 201)]
    service.put("AAPL", "1d", days)
    fetched = Gateway(provider, clock).fetch("AAPL", Interval.D1, day("2025-05-26"), day("2025-05-31"))
    assert list(closes(await fetched)) == ["05-28T13:30", "05-30T13:30"]
    assert [params["interval"] for _, params in service.asked] == ["1d", "1mo", "1d"]


async def test_what_fails_when_it_is_asked_for_alone_costs_nothing_of_the_rest(
    provider: YahooProvider, service: Yahoo, clock: FakeClock
) -> None:
    service.put("AAPL", "1d", [flat("2025-05-28T13:30", 200), flat("2025-05-30T13:30", 201)])
    gateway = Gateway(provider, clock, GatewayPolicy(budget=(Window(limit=2, seconds=60),), patience_s=0))
    table = await gateway.fetch("AAPL", Interval.D1, day("2025-05-26"), day("2025-05-31"))
    assert list(closes(table)) == ["05-28T13:30", "05-30T13:30"]


async def test_a_day_that_was_asked_for_alone_keeps_no_newer_one_from_being_final(
    provider: YahooProvider, service: Yahoo, clock: FakeClock
) -> None:
    service.forgets = {at("2025-06-02T13:30")}
    for final in (False, True):
        table = await Gateway(provider, clock).fetch(
            "AAPL", Interval.D1, day("2025-05-26"), day("2025-06-04")
        )
        assert list(closes(table)) == ["05-30T13:30", "06-02T13:30", "06-03T13:30"]
        assert table["is_final"].to_pylist() == [True, True, final]
        clock.advance(300)


async def test_neither_days_before_the_first_nor_the_one_that_runs_are_missing(
    provider: YahooProvider, service: Yahoo, clock: FakeClock
) -> None:
    clock.advance(63_000)  # 14:00 of the 4th, half an hour after the open
    await Gateway(provider, clock).fetch("AAPL", Interval.D1, day("2025-05-26"), day("2025-06-05"))
    assert len(service.asked) == 1


async def test_a_row_in_another_unit_is_counted_and_comes_with_the_rest_and_its_reason(
    provider: YahooProvider, service: Yahoo, clock: FakeClock
) -> None:
    prices = {"05-28": 72.5, "05-29": 0.731, "05-30": 72.9}
    service.put("VOD.L", "1d", [flat(f"2025-{day}T07:00", price) for day, price in prices.items()], LONDON)
    gateway = Gateway(provider, clock)
    table = await gateway.fetch("VOD.L", Interval.D1, day("2025-05-28"), day("2025-05-31"))
    assert closes(table) == {"05-28T07:00": 72.5, "05-30T07:00": 72.9}
    assert closes(rejected_of(table)) == {"05-29T07:00": 0.731}
    assert gateway.stats().rejected_bars == 1
    assert gateway.stats().state == "CLOSED"


async def test_splits_and_dividends_are_told_as_they_were_paid(
    provider: YahooProvider, service: Yahoo
) -> None:
    service.splits["AAPL"] = [split("2020-08-31T13:30", 4)]
    service.dividends["AAPL"] = [dividend("2020-08-07T13:30", 0.205), dividend("2020-11-06T14:30", 0.205)]
    told = await provider.actions("AAPL", day("2020-08-01"), day("2020-10-01"))
    assert [(action.ex_date, action.kind, action.value) for action in told] == [
        (date(2020, 8, 7), "dividend", 0.82),
        (date(2020, 8, 31), "split", 4.0),
    ]


async def test_minutes_are_asked_for_a_week_at_a_time_and_never_beyond_the_horizon(
    provider: YahooProvider, service: Yahoo
) -> None:
    service.put("AAPL", "1m", [flat("2025-05-06T13:30", 198), flat("2025-06-03T19:59", 203)])
    table = await Gateway(provider).fetch("AAPL", Interval.M1, day("2025-04-01"), day("2025-06-04"))
    assert closes(table) == {"05-06T13:30": 198, "06-03T19:59": 203}
    minutes = [params for _, params in service.asked if params["interval"] == "1m"]
    spans = [(int(params["period1"]), int(params["period2"])) for params in minutes]
    assert all(last - first <= 8 * 86_400 for first, last in spans)
    assert min(spans)[0] >= (NOW - timedelta(days=30)).timestamp()


async def test_minutes_older_than_the_horizon_are_not_asked_for(
    provider: YahooProvider, service: Yahoo
) -> None:
    with pytest.raises(OutOfHorizon, match="yahoo keeps 1m bars of 29 days; those of AAPL before 2025-05-05"):
        await provider.bars("AAPL", Interval.M1, day("2025-03-01"), day("2025-03-02"))
    assert service.asked == []


async def test_a_range_without_sessions_costs_nothing_once_the_exchange_is_known(
    provider: YahooProvider, service: Yahoo
) -> None:
    await daily(provider)
    assert (await daily(provider, "2025-05-31", "2025-06-02")).num_rows == 0  # a weekend
    assert (await daily(provider, "2025-06-04", "2025-06-09")).num_rows == 0  # the future
    assert len(service.asked) == 1


async def test_a_weekend_of_an_unknown_exchange_is_an_empty_table(provider: YahooProvider) -> None:
    assert (await daily(provider, "2025-05-31", "2025-06-01")).num_rows == 0


async def test_half_hours_are_made_of_quarters(provider: YahooProvider, service: Yahoo) -> None:
    service.put("AAPL", "15m", [flat("2025-06-03T13:30", 10), flat("2025-06-03T13:45", 11)])
    table = await provider.bars("AAPL", Interval.M30, day("2025-06-03"), day("2025-06-04"))
    assert closes(table) == {"06-03T13:30": 11}
    assert [params["interval"] for _, params in service.asked] == ["15m"]


async def test_coins_have_bars_on_all_days_and_no_splits_to_ask_for(
    provider: YahooProvider, service: Yahoo
) -> None:
    service.put("BTC-USD", "1d", [flat("2025-05-31T00:00", 104_638.09)], BITCOIN)
    table = await provider.bars("BTC-USD", Interval.D1, day("2025-05-31"), day("2025-06-01"))
    assert closes(table) == {"05-31T00:00": 104_638.09}
    assert len(service.asked) == 1


async def test_an_unknown_symbol_is_told(provider: YahooProvider) -> None:
    with pytest.raises(InvalidSymbol, match="yahoo does not know NOPE"):
        await provider.bars("NOPE", Interval.D1, day("2025-05-30"), day("2025-06-04"))


async def test_classes_of_shares_are_asked_with_a_hyphen(provider: YahooProvider, service: Yahoo) -> None:
    service.put("BRK-B", "1d", [flat("2025-06-02T13:30", 500)])
    table = await provider.bars("BRK.B", Interval.D1, day("2025-06-01"), day("2025-06-04"))
    assert table["symbol"].to_pylist() == ["BRK.B"]


async def test_a_last_price_has_its_time(provider: YahooProvider, service: Yahoo) -> None:
    service.metas["AAPL"] = {
        **NEW_YORK, "regularMarketPrice": 203.27, "regularMarketTime": at("2025-06-03T20:00")
    }  # fmt: skip
    assert isinstance(provider, Quoting)
    assert await provider.quote("AAPL") == Quote("AAPL", 203.27, day("2025-06-03T20:00"), "yahoo", "USD")


async def test_a_throttle_is_no_failure_and_lasts_longer_each_time(
    provider: YahooProvider, service: Yahoo
) -> None:
    waits = []
    for _ in range(3):
        service.faults.append(PlainTextResponse("Too Many Requests\r\n", 429))
        with pytest.raises(RateLimited) as caught:
            await daily(provider)
        waits.append((caught.value.retry_at - NOW).total_seconds())
    assert waits == [60, 120, 240]
    assert len(service.asked) == 3  # none was asked a second time at once
    await daily(provider)
    service.faults.append(PlainTextResponse("Too Many Requests\r\n", 429, {"retry-after": "600"}))
    with pytest.raises(RateLimited) as told:
        await daily(provider)
    assert (told.value.retry_at - NOW).total_seconds() == 600


@pytest.mark.parametrize(
    ("fault", "error", "match"),
    [
        (PlainTextResponse("Too Many Requests\r\n", 200), RateLimited, "Too Many Requests"),
        (PlainTextResponse("Forbidden", 403), RateLimited, "403"),
        (faults.says(401, yahoo.refusal("Unauthorized", "Invalid Crumb")), Unauthorized, "session or a key"),
        (faults.html(), ProviderDown, "a page of HTML"),
        (faults.html(503), ProviderDown, "503"),
        (faults.says(302, {}, location="https://consent.yahoo.com/v2"), ProviderDown, "redirect"),
        (faults.cut, Malformed, "truncated"),
        (faults.gzip_bomb(30_000_000), Malformed, "larger than"),
        (PlainTextResponse('{"chart":', 200), Malformed, "JSON was expected"),
    ],
)
async def test_faults_are_told_apart(
    provider: YahooProvider, service: Yahoo, fault: ASGIApp, error: type[Exception], match: str
) -> None:
    service.faults.append(fault)
    with pytest.raises(error, match=match):
        await daily(provider)
    assert len(service.asked) == 1


async def test_an_address_that_is_refused_after_cooling_down_twice_is_not_served(
    provider: YahooProvider, service: Yahoo
) -> None:
    service.faults.extend([PlainTextResponse("Forbidden", 403)] * 3)
    for expected in (RateLimited, RateLimited, Restricted):
        with pytest.raises(expected):
            await daily(provider)


async def test_a_server_that_hangs_is_down(url: str, service: Yahoo, clock: FakeClock) -> None:
    service.faults.append(faults.hang)
    async with client(url, clock, timeout_s=0.3) as provider:
        with pytest.raises(ProviderDown, match=r"nothing complete within 0\.3 s"):
            await daily(provider)


async def test_a_change_of_the_unit_of_currency_is_malformed_for_a_day(
    provider: YahooProvider, service: Yahoo, clock: FakeClock
) -> None:
    service.put("VOD.L", "1d", [flat("2025-06-02T07:00", 72.5)], LONDON)
    asked = ("VOD.L", Interval.D1, day("2025-06-01"), day("2025-06-03"))
    assert closes(await provider.bars(*asked)) == {"06-02T07:00": 72.5}
    service.metas["VOD.L"] = {**LONDON, "currency": "GBP"}
    with pytest.raises(Malformed, match=r"VOD\.L in GBp before and in GBP now"):
        await provider.bars(*asked)
    clock.advance(86_401)
    assert closes(await provider.bars(*asked)) == {"06-02T07:00": 72.5}  # nobody tells the old one any more


async def test_a_split_of_a_new_day_is_undone_though_those_of_the_day_before_are_kept(
    provider: YahooProvider, service: Yahoo, clock: FakeClock
) -> None:
    service.put("AAPL", "1d", [flat("2020-08-27T13:30", 500.04)])
    clock.advance(
        (datetime(2025, 6, 5, 3, 50, tzinfo=UTC) - clock.now()).total_seconds()
    )  # ten minutes before midnight in New York
    assert closes(await daily(provider, "2020-08-27", "2020-08-28")) == {"08-27T13:30": 500.04}
    clock.advance(1_200)
    service.put("AAPL", "1d", [flat("2020-08-27T13:30", 250.02)])
    service.splits["AAPL"] = [split("2025-06-05T04:00", 2)]
    assert closes(await daily(provider, "2020-08-27", "2020-08-28")) == {"08-27T13:30": 500.04}


async def test_a_key_goes_to_a_paid_gateway_and_into_no_error(
    url: str, service: Yahoo, clock: FakeClock
) -> None:
    service.faults.append(PlainTextResponse(f"key {KEY} is wrong", 403))
    async with client(url, clock, KEY) as provider:
        with pytest.raises(RateLimited) as caught:
            await daily(provider)
    assert service.headers[0]["x-api-key"] == KEY
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("Internal", f"no chart for key {KEY}" + "x" * 5_000, Malformed),
        ("Not Found", f"{KEY}: No data found, symbol may be delisted", InvalidSymbol),
        ("Bad Request", f"the key {KEY} is for another plan", InputError),
    ],
)
async def test_a_key_in_a_refusal_is_not_told_nor_is_all_of_a_long_one(
    url: str, service: Yahoo, clock: FakeClock, code: str, text: str, kind: type[Exception]
) -> None:
    service.faults.append(faults.says(200, yahoo.refusal(code, text)))
    async with client(url, clock, KEY) as provider:
        with pytest.raises(kind) as caught:
            await daily(provider)
    assert KEY[:6] not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert len(str(caught.value)) < 800


async def test_reading_the_same_range_twice_answers_the_same(provider: YahooProvider) -> None:
    assert (await daily(provider)).equals(await daily(provider))
