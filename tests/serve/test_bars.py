"""GET and POST /market-data/ohlcv on the real daily bars of the S&P 500, 2014 to 2018."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from starlette.testclient import TestClient

from cluster.settings import Settings
from serve_apps import bar_formats
from tests.conftest import execute
from tests.serve.conftest import started

pytestmark = pytest.mark.postgres

PATH = "/market-data/ohlcv"
DECEMBER = {
    "symbol": "SPX",
    "timeframe": "1d",
    "start": "2018-12-24T00:00:00Z",
    "end": "2018-12-31T14:30:00Z",
}
LAST = {
    "open": 2498.93994140625,
    "high": 2509.239990234375,
    "low": 2482.820068359375,
    "close": 2506.85009765625,
}
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"


def asked(client: TestClient, **query: Any) -> Any:
    answer = client.get(PATH, params={"symbol": "SPX", **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def days(page: Any) -> list[str]:
    return [bar["ts"][:10] for bar in page["items"]]


def test_the_bars_of_a_range_come_without_its_end_and_without_christmas(client: TestClient) -> None:
    page = asked(client, **DECEMBER)
    assert {name: page[name] for name in ("symbol", "timeframe", "adjusted", "next_cursor")} == {
        "symbol": "SPX",
        "timeframe": "1d",
        "adjusted": "none",
        "next_cursor": None,
    }
    assert days(page) == ["2018-12-24", "2018-12-26", "2018-12-27", "2018-12-28"]


def test_a_bar_has_its_values_its_source_and_its_state(client: TestClient) -> None:
    (bar,) = asked(client, start="2018-12-31T14:30:00Z")["items"]
    assert {name: bar[name] for name in LAST} == pytest.approx(LAST, rel=1e-6)
    assert bar["ts"] == "2018-12-31T14:30:00Z"
    assert {name: bar[name] for name in ("trade_count", "source", "is_final", "revision")} == {
        "trade_count": None,
        "source": "sample",
        "is_final": True,
        "revision": 0,
    }


def test_a_body_is_answered_like_the_same_query(client: TestClient) -> None:
    assert client.post(PATH, json=DECEMBER).json() == asked(client, **DECEMBER)


def test_pages_follow_each_other_without_a_bar_twice_or_left_out(client: TestClient) -> None:
    first = asked(client, **DECEMBER, limit=3)
    second = asked(client, **DECEMBER, limit=3, cursor=first["next_cursor"])
    assert (days(first), days(second)) == (["2018-12-24", "2018-12-26", "2018-12-27"], ["2018-12-28"])
    assert second["next_cursor"] is None


def test_the_newest_come_first_when_they_are_asked_for(client: TestClient) -> None:
    first = asked(client, limit=2, order="desc")
    second = asked(client, limit=2, order="desc", cursor=first["next_cursor"])
    assert days(first) + days(second) == ["2018-12-31", "2018-12-28", "2018-12-27", "2018-12-26"]


def test_a_page_that_ends_with_the_last_bar_says_so(client: TestClient) -> None:
    assert asked(client, **DECEMBER, limit=4)["next_cursor"] is None


def test_a_range_without_bars_is_an_empty_list(client: TestClient) -> None:
    page = asked(client, timeframe="1m")
    assert (page["items"], page["next_cursor"]) == ([], None)


def fetched(client: TestClient, accept: str, **query: Any) -> Any:
    answer = client.get(PATH, params={**DECEMBER, **query}, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, accept)
    assert answer.headers["vary"] == "Accept"
    return answer


def test_csv_has_a_header_and_times_with_z(client: TestClient) -> None:
    lines = fetched(client, "text/csv").text.splitlines()
    assert lines[0] == "symbol,interval,ts,open,high,low,close,volume,trade_count,source,is_final,revision"
    assert lines[1].startswith('"SPX","1d","2018-12-24T14:30:00Z",2400.56')
    assert lines[1].endswith(',,"sample",true,0')
    assert len(lines) == 5


def test_arrow_and_parquet_hold_the_same_table(client: TestClient) -> None:
    arrow = pa.ipc.open_stream(fetched(client, ARROW).content).read_all()
    parquet = pa.parquet.read_table(io.BytesIO(fetched(client, PARQUET).content))
    assert arrow == parquet
    assert arrow.schema.field("ts").type == pa.timestamp("us", tz="UTC")
    assert [moment.day for moment in arrow["ts"].to_pylist()] == [24, 26, 27, 28]


@pytest.mark.parametrize("accept", ["text/csv", ARROW, PARQUET])
def test_files_tell_the_next_page_in_a_header(client: TestClient, accept: str) -> None:
    cursor = asked(client, **DECEMBER, limit=3)["next_cursor"]
    assert fetched(client, accept, limit=3).headers["x-next-cursor"] == cursor
    assert "x-next-cursor" not in fetched(client, accept).headers


@pytest.mark.parametrize("accept", ["text/csv", ARROW, PARQUET])
def test_a_file_without_bars_still_has_its_columns(client: TestClient, accept: str) -> None:
    content = fetched(client, accept, timeframe="1h").content
    if accept == "text/csv":
        assert len(content.splitlines()) == 1
    else:
        table = (
            pa.parquet.read_table(io.BytesIO(content)) if accept == PARQUET else pa.ipc.open_stream(content)
        )
        assert table.schema.names[:3] == ["symbol", "interval", "ts"]


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("text/*", "text/csv"),
        ("application/*", "application/json"),
        ("text/csv;q=0.4, application/vnd.apache.parquet;q=0.5", PARQUET),
        ("application/json;q=0, */*", "text/csv"),
        ("Text/CSV", "text/csv"),
        ("text/csv;q=loud, application/json;q=0.1", "application/json"),
    ],
)
def test_what_the_client_likes_best_is_answered(client: TestClient, accept: str, given: str) -> None:
    answer = client.get(PATH, params=DECEMBER, headers={"Accept": accept})
    assert answer.headers["content-type"].split(";")[0] == given


def test_an_unknown_type_is_refused_with_those_that_are_made(client: TestClient) -> None:
    answer = client.get(PATH, params=DECEMBER, headers={"Accept": "application/pdf"})
    assert (answer.status_code, answer.headers["content-type"]) == (406, "application/problem+json")
    assert "application/json, text/csv" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "pointer", "text"),
    [
        ({"symbol": "AAPL"}, "query symbol", "Symbol AAPL is not in the universe"),
        ({"symbol": "spx'; DROP TABLE candles_daily;--"}, "query symbol", "is not valid"),
        ({"timeframe": "7m"}, "query timeframe", "'1m'"),
        ({"start": "2018-12-31T00:00:00"}, "query start", "timezone"),
        ({"start": "2019-01-01T00:00:00Z", "end": "2018-01-01T00:00:00Z"}, "query", "must be after start"),
        ({"start": "2018-01-01T00:00:00Z", "end": "2018-01-01T00:00:00Z"}, "query", "must be after start"),
        ({"limit": 0}, "query limit", "greater than or equal to 1"),
        ({"limit": 100_001}, "query limit", "at most 100000 (setting MAX_DATA_POINTS)"),
        ({"cursor": "not a cursor!"}, "query cursor", "start again without a cursor"),
        ({"cursor": "JzsgRFJPUCBUQUJMRQ"}, "query cursor", "start again without a cursor"),
        ({"adjusted": "dividends"}, "query adjusted", "'none', 'splits' or 'all'"),
        ({"order": "random"}, "query order", "'asc' or 'desc'"),
        ({"api_key": "secret"}, "query api_key", "not permitted"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_stands(
    client: TestClient, query: dict[str, Any], pointer: str, text: str
) -> None:
    answer = client.get(PATH, params={"symbol": "SPX", **query})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    (error,) = answer.json()["errors"]
    assert (error["pointer"], text in answer.json()["detail"]) == (pointer, True), answer.text


def test_a_wrong_body_is_refused_with_a_pointer_into_it(client: TestClient) -> None:
    answer = client.post(PATH, json={**DECEMBER, "limit": 100_001})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/limit")


@pytest.fixture(scope="module")
def small(settings: Settings) -> Iterator[TestClient]:
    """A replica that answers at most ten bars at once."""
    with started(settings.model_copy(update={"max_data_points": 10})) as client:
        yield client


def test_a_range_over_the_limit_of_the_service_is_refused_and_not_cut(small: TestClient) -> None:
    answer = small.get(PATH, params={"symbol": "SPX", "start": "2018-12-01T00:00:00Z"})
    assert answer.status_code == 422
    assert "more than 10 bars (setting MAX_DATA_POINTS)" in answer.json()["detail"]
    assert "give `limit`" in answer.json()["detail"]


def test_a_range_over_the_limit_can_be_read_page_by_page(small: TestClient) -> None:
    query = {"start": "2018-12-01T00:00:00Z", "limit": 10}
    first = asked(small, **query)
    second = asked(small, **query, cursor=first["next_cursor"])
    assert (len(first["items"]), len(second["items"]), second["next_cursor"]) == (10, 9, None)


def test_exactly_as_many_bars_as_the_limit_are_answered(small: TestClient) -> None:
    query = {"start": "2018-12-01T00:00:00Z", "end": "2018-12-18T00:00:00Z"}
    assert len(asked(small, **query)["items"]) == 10


def test_a_long_answer_is_made_in_short_parts_that_together_are_one_document(spx: pa.Table) -> None:
    revised = spx.append_column("revision", pa.array([0] * len(spx), pa.int32()))
    bars = pa.concat_tables([revised] * 4).slice(0, 5_000)
    parts = list(bar_formats.json_parts({"symbol": "SPX", "next_cursor": None}, bars))
    assert [part.count(b'"ts"') for part in parts] == [0, 2_000, 2_000, 1_000, 0]
    page = json.loads(b"".join(parts))
    assert (page["symbol"], page["next_cursor"], len(page["items"])) == ("SPX", None, 5_000)


def test_a_fraction_of_a_second_is_kept_in_csv(spx: pa.Table) -> None:
    bar = spx.slice(0, 1).append_column("revision", pa.array([0], pa.int32()))
    odd = datetime(2014, 1, 2, 14, 30, 0, 250_000, tzinfo=UTC)
    moved = bar.set_column(2, "ts", pa.array([odd], pa.timestamp("us", tz="UTC")))
    assert b",2014-01-02T14:30:00.250000Z," in bar_formats.file("text/csv", moved).replace(b'"', b"")


@pytest.mark.parametrize(("accept", "maker"), [("text/csv", "file"), ("application/json", "json_parts")])
def test_others_are_answered_while_a_large_answer_is_made(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, accept: str, maker: str
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    make = getattr(bar_formats, maker)

    def slowly(*arguments: Any) -> Any:
        begun.set()
        assert may_go_on.wait(60)
        return make(*arguments)

    def slow_parts(*arguments: Any) -> Iterator[bytes]:
        yield from slowly(*arguments)

    monkeypatch.setattr(bar_formats, maker, slow_parts if maker == "json_parts" else slowly)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(client.get, PATH, params=DECEMBER, headers={"Accept": accept})
        assert begun.wait(60)
        assert client.get("/health").status_code == 200
        may_go_on.set()
        assert large.result(60).status_code == 200


def test_hours_that_no_provider_gave_are_made_of_minutes(settings: Settings, client: TestClient) -> None:
    minute = (
        "INSERT INTO candles_intraday (symbol, interval, ts, open, high, low, close, volume, source) "
        "SELECT 'SPX', '1m', ts, 5, 6, 4, 5, 2, 'hand' FROM generate_series("
        "'2018-12-24 14:30+00'::timestamptz, '2018-12-24 15:59+00', '1 minute') AS ts"
    )
    dsn = settings.require_database_url()
    execute(dsn, "SELECT ensure_candle_partition('1m', '2018-12-24')")
    execute(dsn, minute)
    try:
        page = asked(client, timeframe="5m", start="2018-12-24T14:30:00Z", limit=2)
        assert [(bar["ts"][11:16], bar["volume"], bar["source"]) for bar in page["items"]] == [
            ("14:30", 10.0, "rollup"),
            ("14:35", 10.0, "rollup"),
        ]
        rest = asked(client, timeframe="5m", start="2018-12-24T14:30:00Z", cursor=page["next_cursor"])
        assert [bar["ts"][11:16] for bar in rest["items"]][:1] == ["14:40"]
        assert len(rest["items"]) == 16
    finally:
        execute(dsn, "DELETE FROM candles_intraday WHERE symbol = 'SPX'")
