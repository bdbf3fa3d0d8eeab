"""`adjusted` of /market-data/ohlcv: a split of 2 for 1 on Wednesday, a dividend of 1 on Friday."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from cluster.market.adjustments import CorporateAction
from cluster.settings import Settings
from tests.integration.storage.bar_tables import bar
from tests.serve.market import replica

pytestmark = pytest.mark.postgres

SPLIT = CorporateAction("AAPL", date(2025, 11, 26), "split", 2.0, "test")
DIVIDEND = CorporateAction("AAPL", date(2025, 11, 28), "dividend", 1.0, "test")
SATURDAY = datetime(2025, 11, 29, tzinfo=UTC)


def daily(day: int, price: float) -> dict[str, Any]:
    ts = datetime(2025, 11, day, 14, 30, tzinfo=UTC)
    return bar(ts=ts, interval="1d", open=price, high=price, low=price, close=price)


BARS = (daily(24, 20.0), daily(25, 20.0), daily(26, 10.0), daily(28, 10.0))


@pytest.fixture
def client(settings: Settings, database_url: str) -> Iterator[TestClient]:
    with replica(settings, database_url, SATURDAY, *BARS, actions=[SPLIT, DIVIDEND]) as found:
        yield found


def values(client: TestClient, **query: Any) -> list[tuple[float, float]]:
    answer = client.get("/market-data/ohlcv", params={"symbol": "AAPL", **query})
    assert answer.status_code == 200, answer.text
    return rounded(answer.json())


def rounded(page: Any) -> list[tuple[float, float]]:
    return [(round(each["close"], 9), round(each["volume"], 9)) for each in page["items"]]


@pytest.mark.parametrize(
    ("adjusted", "found"),
    [
        ("none", [(20.0, 100.0), (20.0, 100.0), (10.0, 100.0), (10.0, 100.0)]),
        ("splits", [(10.0, 200.0), (10.0, 200.0), (10.0, 100.0), (10.0, 100.0)]),
        ("all", [(9.0, 200.0), (9.0, 200.0), (9.0, 100.0), (10.0, 100.0)]),
    ],
)
def test_bars_are_adjusted_on_the_way_out_and_not_in_the_store(
    client: TestClient, adjusted: str, found: list[tuple[float, float]]
) -> None:
    assert values(client, adjusted=adjusted) == found
    assert values(client) == [(20.0, 100.0), (20.0, 100.0), (10.0, 100.0), (10.0, 100.0)]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_bar_is_the_same_on_whichever_page_it_comes(client: TestClient, order: str) -> None:
    whole = values(client, adjusted="all", order=order)
    cursor: dict[str, str] = {}
    paged = []
    for _ in BARS:
        query = {"symbol": "AAPL", "adjusted": "all", "order": order, "limit": "1", **cursor}
        page = client.get("/market-data/ohlcv", params=query).json()
        paged += rounded(page)
        cursor = {"cursor": page["next_cursor"] or ""}
    assert paged == whole
    assert whole == values(client, adjusted="all")[:: 1 if order == "asc" else -1]


def test_files_are_adjusted_too(client: TestClient) -> None:
    query = {"symbol": "AAPL", "adjusted": "splits"}
    accept = {"Accept": "application/vnd.apache.arrow.stream"}
    answer = client.get("/market-data/ohlcv", params=query, headers=accept)
    assert pa.ipc.open_stream(answer.content).read_all()["close"].to_pylist() == [10.0] * 4


def test_an_action_that_is_still_to_come_changes_nothing(settings: Settings, database_url: str) -> None:
    tuesday = datetime(2025, 11, 25, 22, tzinfo=UTC)
    with replica(settings, database_url, tuesday, *BARS[:2], actions=[SPLIT]) as client:
        assert values(client, adjusted="all") == [(20.0, 100.0), (20.0, 100.0)]


def test_a_dividend_without_a_close_before_it_is_told_and_not_guessed(
    settings: Settings, database_url: str
) -> None:
    old = daily(3, 10.0)
    with replica(settings, database_url, SATURDAY, old, BARS[3], actions=[DIVIDEND]) as client:
        answer = client.get("/market-data/ohlcv", params={"symbol": "AAPL", "adjusted": "all"})
    assert (answer.status_code, "no bar of the ten days before" in answer.json()["detail"]) == (409, True)
