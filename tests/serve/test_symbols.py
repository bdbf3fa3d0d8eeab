"""GET /symbols, POST and PATCH /symbols/{symbol}, GET /universe/versions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from cluster.market.symbols import Instrument
from cluster.settings import Settings
from cluster.storage import universe
from cluster.storage.database import Database
from serve_apps import paging
from tests.conftest import execute
from tests.serve.conftest import ADMIN_KEY, USER_KEY, started

pytestmark = pytest.mark.postgres

ADMIN = {"X-API-Key": ADMIN_KEY}
AAPL = {
    "symbol": "AAPL",
    "exchange": "NASDAQ",
    "asset_type": "equity",
    "calendar": "XNYS",
    "name": "Apple",
    "currency": "USD",
    "tier": "T0",
    "active": True,
    "adv_21d": 5e7,
    "mkt_cap": None,
}


@pytest.fixture
def replica(settings: Settings, database_url: str) -> Iterator[TestClient]:
    """A replica whose universe has AAPL, BTC-USD and, inactive, SPX, and three versions."""
    asyncio.run(_fill(database_url))
    with started(settings.model_copy(update={"database_url": database_url})) as client:
        yield client


async def _fill(dsn: str) -> None:
    database = await Database.open(dsn, max_size=1)
    try:
        await universe.import_all(
            database,
            [
                Instrument("AAPL", "NASDAQ", "equity", "XNYS", "Apple", tier="T0", adv_21d=5e7),
                Instrument("BTC-USD", "BINANCE", "crypto", "24/7"),
                Instrument("SPX", "INDEX", "index", "XNYS", active=False),
            ],
            "2025w1",
            {"source": "manual"},
        )
        for tag in ("2025w2", "2025w3"):
            await universe.import_all(database, [], tag, {"source": "manual"})
    finally:
        await database.close()


def names(replica: TestClient, **query: Any) -> list[str]:
    answer = replica.get("/symbols", params=query)
    assert answer.status_code == 200, answer.text
    return [each["symbol"] for each in answer.json()["items"]]


def test_the_active_symbols_are_listed_with_all_that_is_known(replica: TestClient) -> None:
    page = replica.get("/symbols").json()
    assert (page["items"][0], page["next_cursor"]) == (AAPL, None)
    assert names(replica) == ["AAPL", "BTC-USD"]
    assert names(replica, all=True) == ["AAPL", "BTC-USD", "SPX"]


def test_a_tier_is_listed_alone(replica: TestClient) -> None:
    assert (names(replica, tier="T0"), names(replica, tier="T3")) == (["AAPL"], [])


def test_symbols_come_page_by_page(replica: TestClient) -> None:
    first = replica.get("/symbols", params={"limit": 1}).json()
    assert names(replica, limit=1, cursor=first["next_cursor"]) == ["BTC-USD"]


def test_versions_come_page_by_page_newest_first(replica: TestClient) -> None:
    first = replica.get("/universe/versions", params={"limit": 2}).json()
    assert [each["version_tag"] for each in first["items"]] == ["2025w3", "2025w2"]
    assert first["items"][0]["source_meta"]["source"] == "manual"
    second = replica.get("/universe/versions", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [each["version_tag"] for each in second["items"]] == ["2025w1"]
    assert second["next_cursor"] is None


def test_a_version_tells_everybody_what_was_changed_and_nobody_by_which_key(replica: TestClient) -> None:
    assert replica.patch("/symbols/AAPL", json={"tier": "T1"}, headers=ADMIN).status_code == 200
    newest = replica.get("/universe/versions", params={"limit": 1}).json()["items"][0]
    assert newest["source_meta"] == {"source": "manual", "changed": ["AAPL"]}


@pytest.mark.parametrize("path", ["/symbols", "/universe/versions"])
@pytest.mark.parametrize("cursor", ["!", "JzsgRFJPUCBUQUJMRQ", "AAAA", "LTE", "w6Q"])
def test_a_cursor_of_somebody_elses_making_is_refused(replica: TestClient, path: str, cursor: str) -> None:
    answer = replica.get(path, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query cursor"), answer.text


def test_a_cursor_beyond_all_numbers_is_refused(replica: TestClient) -> None:
    beyond = paging.encoded("9" * 40)
    assert replica.get("/universe/versions", params={"cursor": beyond}).status_code == 422


def test_a_symbol_is_added_with_the_defaults_of_its_kind(replica: TestClient) -> None:
    answer = replica.post("/symbols/ETH-USD", json={"exchange": "X", "asset_type": "crypto"}, headers=ADMIN)
    assert (answer.status_code, answer.json()["calendar"], answer.json()["tier"]) == (201, "24/7", "T2")
    assert names(replica) == ["AAPL", "BTC-USD", "ETH-USD"]


def test_adding_what_is_there_is_a_conflict_and_changes_nothing(replica: TestClient) -> None:
    answer = replica.post("/symbols/AAPL", json={"exchange": "NYSE"}, headers=ADMIN)
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert replica.get("/symbols").json()["items"][0] == AAPL


def test_a_change_keeps_what_it_does_not_name(replica: TestClient) -> None:
    answer = replica.patch("/symbols/AAPL", json={"tier": "T1", "adv_21d": None}, headers=ADMIN)
    assert (answer.status_code, answer.json()) == (200, {**AAPL, "tier": "T1", "adv_21d": None})
    assert replica.get("/symbols").json()["items"][0] == answer.json()


def test_an_unknown_symbol_cannot_be_changed(replica: TestClient) -> None:
    answer = replica.patch("/symbols/MSFT", json={"tier": "T1"}, headers=ADMIN)
    assert (answer.status_code, "POST /symbols/MSFT adds it" in answer.json()["detail"]) == (404, True)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"X-API-Key": "wrong"}, 401), ({"X-API-Key": USER_KEY}, 403)]
)
def test_only_an_administrator_may_write(
    replica: TestClient, method: str, headers: dict[str, str], status: int
) -> None:
    answer = replica.request(method, "/symbols/AAPL", json={"exchange": "NYSE"}, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert replica.get("/symbols").json()["items"][0] == AAPL


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({}, "#"),
        ({"tier": "T9"}, "#/tier"),
        ({"tier": None}, "#"),
        ({"calendar": "MOON"}, "#/calendar"),
        ({"mkt_cap": -1}, "#/mkt_cap"),
        ({"active": "yes"}, "#/active"),
        ({"name": "a\u0000b"}, "#/name"),
        ({"name": "x" * 129}, "#/name"),
        ({"symbol": "MSFT"}, "#/symbol"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_where_it_stands(
    replica: TestClient, changes: dict[str, Any], pointer: str
) -> None:
    answer = replica.patch("/symbols/AAPL", json=changes, headers=ADMIN)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text
    assert replica.get("/symbols").json()["items"][0] == AAPL


def test_a_new_symbol_is_checked_in_spelling_and_calendar(replica: TestClient) -> None:
    assert replica.post("/symbols/msft", json={"exchange": "X"}, headers=ADMIN).status_code == 422
    answer = replica.post("/symbols/MSFT", json={"exchange": "X", "calendar": "MOON"}, headers=ADMIN)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/calendar")
    assert names(replica) == ["AAPL", "BTC-USD"]


def test_one_symbol_of_an_unknown_calendar_leaves_the_gaps_of_all_others(
    replica: TestClient, database_url: str
) -> None:
    execute(database_url, "UPDATE symbol_universe SET calendar = 'NOPE' WHERE symbol = 'BTC-USD'")
    december = {"start": "2018-12-01T00:00:00Z", "end": "2019-01-01T00:00:00Z"}
    found = replica.get("/gaps", params=december)
    assert (found.status_code, [each["symbol"] for each in found.json()["items"]]) == (200, ["AAPL"])
    named = replica.get("/gaps", params={**december, "symbol": "BTC-USD"})
    assert (named.status_code, "calendar 'NOPE' is not known" in named.json()["detail"]) == (422, True)
