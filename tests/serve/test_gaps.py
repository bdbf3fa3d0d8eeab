"""GET /gaps: what is missing of the S&P 500 in December 2018, and of symbols without a bar."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.settings import Settings
from cluster.storage import bars, known_gaps, universe
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.database import Database
from cluster.storage.known_gaps import Hole
from serve_apps.routes import gaps as gap_routes
from tests.conftest import execute
from tests.serve.conftest import started

pytestmark = pytest.mark.postgres

DECEMBER = {"start": "2018-12-01T00:00:00Z", "end": "2019-01-01T00:00:00Z"}
LOST = np.array(["2018-12-10", "2018-12-11", "2018-12-20"], "datetime64[D]")


@pytest.fixture
def replica(settings: Settings, database_url: str, spx: pa.Table) -> Iterator[TestClient]:
    """A replica with the bars of SPX but for three days, and none of A, B and C, one of which is inactive."""
    days = spx["ts"].to_numpy().astype("datetime64[D]")
    asyncio.run(_fill(database_url, spx.filter(pa.array(~np.isin(days, LOST)))))
    with started(settings.model_copy(update={"database_url": database_url})) as client:
        yield client


async def _fill(dsn: str, table: pa.Table) -> None:
    database = await Database.open(dsn, max_size=2)
    try:
        for each in (
            Instrument("A", "NYSE", "equity", "XNYS", tier="T3"),
            Instrument("B", "NYSE", "equity", "XNYS", tier="T3"),
            Instrument("C", "NYSE", "equity", "XNYS", tier="T3", active=False),
            Instrument("SPX", "INDEX", "index", "XNYS", tier="T0"),
        ):
            await universe.add(database, each)
        async with database.transaction() as connection:
            await bars.write(connection, table)
            hole = Hole(Span(_day(20), _day(21)), "no_data")
            await known_gaps.record(connection, "SPX", Interval.D1, "sample", hole.span, [hole])
        await BackfillQueue(database).enqueue("SPX", Interval.D1, _day(11), _day(12))
    finally:
        await database.close()


def _day(number: int) -> datetime:
    return datetime(2018, 12, number, tzinfo=UTC)


def page(replica: TestClient, **query: Any) -> Any:
    answer = replica.get("/gaps", params={**DECEMBER, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def short(found: Any) -> list[tuple[str, str, int, str]]:
    return [(each["symbol"], each["start"][:10], each["missing"], each["cause"]) for each in found["items"]]


SPX_GAPS = [
    ("SPX", "2018-12-10", 1, "not_fetched"),
    ("SPX", "2018-12-11", 1, "queued"),
    ("SPX", "2018-12-20", 1, "no_data"),
]


def test_what_is_missing_comes_with_its_cause_and_who_was_asked(replica: TestClient) -> None:
    found = page(replica, symbol="SPX")
    assert found["items"][2] == {
        "symbol": "SPX",
        "interval": "1d",
        "tier": "T0",
        "start": "2018-12-20T14:30:00Z",
        "end": "2018-12-21T14:30:00Z",
        "missing": 1,
        "state": "known",
        "cause": "no_data",
        "provider": "sample",
        "detail": None,
    }
    assert (short(found), found["next_cursor"]) == (SPX_GAPS, None)


def test_open_gaps_and_known_holes_can_be_asked_for_alone(replica: TestClient) -> None:
    assert short(page(replica, symbol="SPX", state="open")) == SPX_GAPS[:2]
    assert short(page(replica, symbol="SPX", state="known")) == SPX_GAPS[2:]


def test_all_active_symbols_are_looked_at_and_a_tier_alone_when_asked(replica: TestClient) -> None:
    whole = [(name, "2018-12-03", 19, "not_fetched") for name in ("A", "B")]
    assert short(page(replica)) == whole + SPX_GAPS
    assert short(page(replica, tier="T3")) == whole


def test_without_a_start_each_symbol_begins_with_its_oldest_bar(replica: TestClient) -> None:
    found = replica.get("/gaps", params={"end": DECEMBER["end"]}).json()
    assert short(found) == SPX_GAPS


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_pages_follow_each_other_also_in_the_middle_of_a_symbol(replica: TestClient, limit: int) -> None:
    assert _all_pages(replica, limit=limit) == short(page(replica))


def test_a_search_that_would_look_at_too_much_goes_on_with_the_next_page(
    replica: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = short(page(replica))
    monkeypatch.setattr(gap_routes, "_SLOTS_AT_ONCE", 31)  # days of December
    assert short(page(replica)) == whole[:1]
    assert _all_pages(replica) == whole
    monkeypatch.setattr(gap_routes, "_SYMBOLS_AT_ONCE", 1)
    assert _all_pages(replica, limit=2) == whole


def _all_pages(replica: TestClient, **query: Any) -> list[tuple[str, str, int, str]]:
    found: list[tuple[str, str, int, str]] = []
    cursor: dict[str, str] = {}
    for _ in range(20):
        part = page(replica, **query, **cursor)
        found += short(part)
        if part["next_cursor"] is None:
            return found
        cursor = {"cursor": part["next_cursor"]}
    raise AssertionError("the pages have no end")


def test_a_bar_that_may_still_be_on_its_way_is_not_missing(replica: TestClient) -> None:
    # It is noon of Saturday, 2019-01-05; Friday's session opened less than a day ago.
    found = page(replica, symbol="SPX", start="2018-12-31T00:00:00Z", end="2019-02-01T00:00:00Z")
    assert short(found) == [("SPX", "2019-01-02", 2, "not_fetched")]


def test_an_empty_universe_has_no_gaps(settings: Settings, database_url: str) -> None:
    with started(settings.model_copy(update={"database_url": database_url})) as client:
        assert client.get("/gaps").json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"symbol": "MSFT"}, "query symbol"),
        ({"symbol": "A'--"}, "query symbol"),
        ({"interval": "7m"}, "query interval"),
        ({"tier": "T9"}, "query tier"),
        ({"state": "closed"}, "query state"),
        ({"start": "2018-12-01T00:00:00"}, "query start"),
        ({"start": "1969-12-31T00:00:00Z"}, "query start"),  # before any calendar
        ({"start": "0001-01-01T00:00:00Z"}, "query start"),
        ({"symbol": "SPX", "interval": "1m", "start": "1970-01-01T00:00:00Z"}, "query start"),
        ({"start": DECEMBER["end"], "end": DECEMBER["start"]}, "query end"),
        ({"cursor": "U1BYIDE"}, "query cursor"),
        ({"cursor": "!"}, "query cursor"),
        ({"limit": 1001}, "query limit"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_stands(
    replica: TestClient, query: dict[str, Any], pointer: str
) -> None:
    answer = replica.get("/gaps", params=query)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text


def test_a_calendar_that_nobody_knows_is_the_symbols_fault(replica: TestClient, database_url: str) -> None:
    execute(database_url, "UPDATE symbol_universe SET calendar = 'NOPE' WHERE symbol = 'A'")
    answer = replica.get("/gaps", params={**DECEMBER, "symbol": "A"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query symbol"), answer.text
