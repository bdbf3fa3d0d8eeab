"""GET /stocks/{symbol}/price: the newest price, its age, and whether a later one should be there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cluster.settings import Settings
from tests.integration.storage.bar_tables import bar
from tests.serve.market import replica

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
