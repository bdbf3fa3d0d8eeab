"""Whom the last price is asked of, and how often."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import structlog.testing

from cluster.clock import FakeClock
from cluster.errors import InvalidSymbol, ProviderDown, RateLimited
from cluster.market.intervals import Interval
from cluster.market.symbols import AssetType, Instrument
from cluster.providers.protocol import Capabilities, Quote
from cluster.providers.stats import ProviderState, Standing
from serve_apps.quotes import Quotes

NOW = datetime(2025, 12, 1, 15, 0, tzinfo=UTC)
AAPL = Instrument("AAPL", "NASDAQ", "equity", "XNYS")
TOLD = Quote("AAPL", 281.5, NOW - timedelta(seconds=4), "finnhub")


class Telling:
    """A gateway that tells given prices or fails, and counts how often it was asked."""

    def __init__(
        self,
        *answers: Quote | Exception,
        seconds_per_call: float = 0.0,
        asset_type: AssetType = "equity",
        state: ProviderState = "CLOSED",
        errand: bool = True,
    ) -> None:
        self.asked = 0
        self._answers = answers
        self._terms = (seconds_per_call, asset_type, state, errand)

    async def standing(self) -> Standing:
        seconds_per_call, asset_type, state, errand = self._terms
        kinds = frozenset({asset_type})
        offer = Capabilities(frozenset(Interval), symbols=None, page_bars=1, asset_types=kinds)
        name = "dear" if seconds_per_call else "cheap"
        return Standing(name, offer, seconds_per_call, state, errands=frozenset({"quote"} if errand else ()))

    async def quote(self, symbol: str) -> Quote:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


class Silent(Telling):
    """A gateway that never answers."""

    async def quote(self, symbol: str) -> Quote:
        await asyncio.Event().wait()
        raise AssertionError


class Gone(Telling):
    """A gateway that does not run."""

    async def standing(self) -> Standing:
        raise ProviderDown("not running")


class Hanging(Telling):
    """A gateway that does not even tell how it stands."""

    async def standing(self) -> Standing:
        await asyncio.Event().wait()
        raise AssertionError


async def test_the_price_is_kept_shortly_and_asked_for_once_by_many() -> None:
    clock, source = FakeClock(NOW), Telling(TOLD, Quote("AAPL", 282.0, NOW, "finnhub"))
    quotes = Quotes(lambda: {"cheap": source}, clock, kept_s=5.0)
    assert await asyncio.gather(*(quotes.latest(AAPL) for _ in range(10))) == [TOLD] * 10
    clock.advance(4.9)
    assert await quotes.latest(AAPL) == TOLD
    assert source.asked == 1
    clock.advance(0.1)
    told = await quotes.latest(AAPL)
    assert told is not None
    assert told.price == 282.0


async def test_that_nobody_tells_a_price_is_kept_too() -> None:
    source = Telling(InvalidSymbol("no AAPL"))
    quotes = Quotes(lambda: {"cheap": source}, FakeClock(NOW))
    assert [await quotes.latest(AAPL) for _ in range(3)] == [None] * 3
    assert source.asked == 1


async def test_one_who_goes_away_takes_the_answer_from_nobody_else() -> None:
    quotes = Quotes(lambda: {"cheap": Telling(TOLD)}, FakeClock(NOW))
    first = asyncio.create_task(quotes.latest(AAPL))
    second = asyncio.create_task(quotes.latest(AAPL))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == TOLD


@pytest.mark.parametrize(
    "source",
    [
        Telling(RateLimited("later", NOW)),
        Telling(InvalidSymbol("no AAPL")),
        Telling(ProviderDown("gone")),
        Telling(ValueError("broken")),
        Silent(TOLD),
        Gone(TOLD),
        Telling(TOLD, asset_type="crypto"),
        Telling(TOLD, state="OPEN"),
        Telling(TOLD, errand=False),
    ],
)
async def test_who_fails_or_does_not_have_it_tells_nothing(source: Telling) -> None:
    assert await Quotes(lambda: {"cheap": source}, FakeClock(NOW), timeout_s=0.2).latest(AAPL) is None


async def test_the_cheap_are_asked_before_the_dear_and_the_next_when_one_fails() -> None:
    clock = FakeClock(NOW)
    dear = Telling(Quote("AAPL", 280.0, NOW, "dear"), seconds_per_call=3_456.0)
    cheap = Telling(TOLD, ProviderDown("gone"))
    quotes = Quotes(lambda: {"dear": dear, "cheap": cheap}, clock)
    assert await quotes.latest(AAPL) == TOLD
    assert dear.asked == 0
    clock.advance(5)
    told = await quotes.latest(AAPL)
    assert told is not None
    assert told.source == "dear"


async def test_a_gateway_that_hangs_does_not_keep_the_others_from_telling() -> None:
    sources = {"hangs": Hanging(TOLD), "cheap": Telling(TOLD)}
    assert await Quotes(lambda: sources, FakeClock(NOW), timeout_s=2.0).latest(AAPL) == TOLD


async def test_without_providers_there_is_no_price() -> None:
    assert await Quotes(dict, FakeClock(NOW)).latest(AAPL) is None


@pytest.mark.parametrize(
    "error", [ProviderDown("GET /quote?token=s3cr3t failed"), ValueError("api_key=s3cr3t")]
)
async def test_why_nobody_tells_a_price_is_logged_without_a_key(error: Exception) -> None:
    with structlog.testing.capture_logs() as logged:
        assert await Quotes(lambda: {"cheap": Telling(error)}, FakeClock(NOW)).latest(AAPL) is None
    (line,) = logged
    assert (line["event"], "***" in line["reason"]) == ("no_quote", True)
    assert "s3cr3t" not in str(line)
