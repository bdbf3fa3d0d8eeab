"""GET /stocks/{symbol}/price: the newest price, its age, and whether a later one should be there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from cluster.clock import FakeClock
from cluster.errors import ProviderDown
from cluster.providers.protocol import Quote
from cluster.settings import Settings
from serve_apps.quotes import Quotes, QuoteSource
from tests.integration.storage.bar_tables import bar
from tests.serve.market import replica
from tests.serve.test_quotes import Telling

pytestmark = pytest.mark.postgres

# 2025-11-26 is the Wednesday before Thanksgiving; the 28th is a half day that ends at 18:00 UTC.
WEDNESDAY, FRIDAY = datetime(2025, 11, 26, 14, 30, tzinfo=UTC), datetime(2025, 11, 28, 14, 30, tzinfo=UTC)


def at(day: int, hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2025, 11, day, hour, minute, second, tzinfo=UTC)


def test_the_price_is_the_close_of_the_bar_that_ended_last(settings: Settings, database_url: str) -> None:
    rows = (
        bar(ts=WEDNESDAY, interval="1d", close=9.5),
        bar(ts=at(28, 17, 58), close=10.25),
        bar(ts=at(28, 17, 59), close=10.5),
    )
    with replica(settings, database_url, at(28, 18, 0, 30), *rows) as client:
        assert client.get("/stocks/AAPL/price").json() == {
            "symbol": "AAPL",
            "price": 10.5,
            "currency": "USD",
            "kind": "bar",
            "ts": "2025-11-28T17:59:00Z",
            "interval": "1m",
            "is_final": True,
            "source": "synthetic",
            "as_of": "2025-11-28T18:00:00Z",
            "age_seconds": 30.0,
            "stale": False,
        }


def test_a_daily_price_held_at_the_end_of_its_session_half_days_too(
    settings: Settings, database_url: str
) -> None:
    with replica(settings, database_url, at(28, 19, 0), bar(ts=FRIDAY, interval="1d")) as client:
        found = client.get("/stocks/AAPL/price").json()
    assert (found["as_of"], found["age_seconds"]) == ("2025-11-28T18:00:00Z", 3600.0)


@pytest.mark.parametrize(
    ("now", "stale"),
    [
        (datetime(2025, 11, 28, 18, 0, 30, tzinfo=UTC), False),
        (datetime(2025, 11, 30, 23, 0, tzinfo=UTC), False),  # Sunday
        (datetime(2025, 12, 1, 14, 30, 59, tzinfo=UTC), False),  # Monday's first minute still runs
        (datetime(2025, 12, 1, 14, 31, 59, tzinfo=UTC), False),  # it has closed, and may be on its way
        (datetime(2025, 12, 1, 14, 32, 1, tzinfo=UTC), True),
        (datetime(2026, 6, 1, tzinfo=UTC), True),
    ],
)
def test_a_price_is_stale_when_the_calendar_has_a_later_bar_and_not_over_the_weekend(
    settings: Settings, database_url: str, now: datetime, stale: bool
) -> None:
    with replica(settings, database_url, now, bar(ts=at(28, 17, 59))) as client:
        assert client.get("/stocks/AAPL/price").json()["stale"] is stale


def test_a_market_that_never_closes_is_stale_after_two_minutes(settings: Settings, database_url: str) -> None:
    row = bar("BTC-USD", ts=at(30, 3, 0))
    with replica(settings, database_url, at(30, 3, 3, 1), row) as client:
        assert client.get("/stocks/BTC-USD/price").json()["stale"] is True


def test_a_bar_that_still_runs_gives_the_price_of_its_last_write(
    settings: Settings, database_url: str
) -> None:
    row = bar("BTC-USD", ts=at(30, 3, 0), is_final=False)
    with replica(settings, database_url, at(30, 3, 0, 20), row) as client:
        found = client.get("/stocks/BTC-USD/price").json()
    # It was written just now, long after its end, which therefore counts.
    assert (found["is_final"], found["as_of"], found["stale"]) == (False, "2025-11-30T03:01:00Z", False)
    assert found["age_seconds"] == 0.0


@pytest.mark.parametrize(
    ("symbol", "status", "text"),
    [
        ("AAPL", 404, "`finsight backfill AAPL` fetches them"),
        ("MSFT", 404, "Symbol MSFT is not in the universe"),
        ("aapl", 422, "upper case"),
        ("A'--", 422, "is not valid"),
        ("A%00", 422, "is not valid"),
    ],
)
def test_a_symbol_without_a_price_is_a_problem(
    settings: Settings, database_url: str, symbol: str, status: int, text: str
) -> None:
    with replica(settings, database_url, at(28, 18, 0)) as client:
        answer = client.get(f"/stocks/{symbol}/price")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert text in answer.json()["detail"]


MONDAY = datetime(2025, 12, 1, 15, 0, tzinfo=UTC)
TOLD = Quote("AAPL", 281.5, MONDAY - timedelta(seconds=4), "finnhub")


def told_by(client: TestClient, sources: Mapping[str, QuoteSource], symbol: str = "AAPL") -> dict[str, Any]:
    """The price, when the replica has these gateways."""
    app: Any = client.app
    app.state.services.quotes = Quotes(lambda: sources, FakeClock(MONDAY), timeout_s=0.2)
    found: dict[str, Any] = client.get(f"/stocks/{symbol}/price").json()
    return found


def test_when_the_newest_bar_is_stale_a_provider_is_asked(settings: Settings, database_url: str) -> None:
    with replica(settings, database_url, MONDAY, bar(ts=at(28, 17, 59))) as client:
        assert told_by(client, {"cheap": Telling(TOLD)}) == {
            "symbol": "AAPL",
            "price": 281.5,
            "currency": "USD",
            "kind": "quote",
            "ts": "2025-12-01T14:59:56Z",
            "interval": None,
            "is_final": None,
            "source": "finnhub",
            "as_of": "2025-12-01T14:59:56Z",
            "age_seconds": 4.0,
            "stale": False,
        }


def test_nobody_is_asked_while_the_newest_bar_is_new_enough(settings: Settings, database_url: str) -> None:
    source = Telling(TOLD)
    with replica(settings, database_url, at(28, 18, 0, 30), bar(ts=at(28, 17, 59))) as client:
        assert told_by(client, {"cheap": source})["kind"] == "bar"
    assert source.asked == 0


def test_a_symbol_without_bars_has_the_price_that_a_provider_tells(
    settings: Settings, database_url: str
) -> None:
    with replica(settings, database_url, MONDAY) as client:
        assert told_by(client, {"cheap": Telling(TOLD)})["price"] == 281.5


@pytest.mark.parametrize(
    "source",
    [
        Telling(ProviderDown("gone")),
        Telling(Quote("AAPL", 1.0, at(28, 17, 0), "old")),  # before the bar
    ],
)
def test_the_stale_bar_is_answered_when_nobody_tells_a_newer_price(
    settings: Settings, database_url: str, source: Telling
) -> None:
    with replica(settings, database_url, MONDAY, bar(ts=at(28, 17, 59), close=10.5)) as client:
        found = told_by(client, {"cheap": source})
    assert (found["price"], found["source"], found["kind"]) == (10.5, "synthetic", "bar")
    assert (found["stale"], found["age_seconds"]) == (True, (MONDAY - at(28, 18, 0)).total_seconds())


def test_a_quote_of_yesterday_is_stale_and_pence_stay_pence(settings: Settings, database_url: str) -> None:
    pence = Quote("AAPL", 72.5, at(28, 18, 0), "yahoo", "GBp")
    with replica(settings, database_url, MONDAY) as client:
        found = told_by(client, {"cheap": Telling(pence)})
    assert (found["stale"], found["currency"]) == (True, "GBp")
