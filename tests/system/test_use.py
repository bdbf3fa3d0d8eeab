"""What runbooks and dashboards do with a running instance, word for word: SQL, curl, and a day without bars.

Comes after `test_up`, whose instance it goes on with.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.settings import load
from tests.integration.storage import test_contract_statements as contract
from tests.system.conftest import Whole
from tests.system.curl import Answer, curl

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(400)]

SYMBOL = "SYN0001"
MIDNIGHT = (datetime.now(UTC) - timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
FIRST, LAST = MIDNIGHT + timedelta(hours=14), MIDNIGHT + timedelta(hours=14, minutes=10)
WINDOW = f"symbol='{SYMBOL}' AND interval='1m' AND ts BETWEEN '{FIRST:%F %T}' AND '{LAST:%F %T}'"
BARS_OF_THE_WINDOW = f"SELECT * FROM candles_intraday WHERE {WINDOW} ORDER BY ts"


@pytest.fixture(scope="module")
def running(finsight: Whole) -> Whole:
    """The instance, started unless it runs."""
    if not finsight.says_it_is_up():
        finsight.run("up")
    return finsight


@pytest.fixture(scope="module")
def sql(running: Whole) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """Runs a statement on its database."""
    dsn = load(environ={"FINSIGHT_HOME": str(running.home)}).require_database_url()
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("SET timezone = 'UTC'")

    def run(statement: str) -> list[tuple[Any, ...]]:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else [(cursor.rowcount,)]

    yield run
    connection.close()


Sql = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def admin(running: Whole) -> str:
    """The header with the administrator's key."""
    key = Path(running.home, "admin-key").read_text().strip()
    return f"X-API-Key: {key}"


def until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait for what must become true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)


def body(text: str) -> tuple[str, ...]:
    """A JSON body."""
    return "-H", "Content-Type: application/json", "-d", text


def refused(answer: Answer, status: int) -> bool:
    """Whether it is a problem document of this status."""
    return (answer.status, answer.content_type) == (status, "application/problem+json") and (
        answer.json["status"] == status
    )


def test_the_statements_of_the_runbook_work_as_they_stand(sql: Sql) -> None:
    # Nobody offers AAPL here: what it is for is over when the statement has worked
    for statement in (contract.ADD_SYMBOL, contract.ADD_SYMBOL, contract.ADD_VERSION):
        assert sql(statement) == [(1,)]
    assert sql("SELECT tier, active FROM symbol_universe WHERE symbol = 'AAPL'") == [("T0", True)]
    sql("DELETE FROM symbol_universe WHERE symbol = 'AAPL'")
    assert sql(contract.COUNT_MINUTES) == [(0,)]
    assert sql(contract.COUNT_FEATURES)[0][0] == 10_062
    ((newest,),) = sql(contract.LAST_BAR)
    assert newest >= datetime(2018, 12, 31, 14, 30, tzinfo=UTC)


def test_a_symbol_is_added_and_changed_by_an_administrator_only(running: Whole, admin: str) -> None:
    url = f"{running.url}/symbols/{SYMBOL}"
    new = body('{"exchange": "SYNTHETIC", "asset_type": "crypto", "active": false}')
    assert refused(curl("-X", "POST", url, *new), 401)
    added = curl("-X", "POST", url, "-H", admin, *new)
    assert (added.status, added.json["calendar"], added.json["tier"]) == (201, "24/7", "T2")
    assert refused(curl("-X", "POST", url, "-H", admin, *new), 409)
    changed = curl(
        "-X",
        "PATCH",
        url,
        "-H",
        admin.replace("X-API-Key:", "Authorization: Bearer"),
        *body('{"tier": "T0"}'),
    )
    assert (changed.status, changed.json["tier"]) == (200, "T0")
    listed = curl(f"{running.url}/symbols?all=true").json
    assert {each["symbol"] for each in listed["items"]} == {"IXIC", "SPX", SYMBOL}
    assert curl(f"{running.url}/symbols?as_of=2020-01-01T00:00:00Z").json["items"] == []


def test_versions_tell_where_the_universe_came_from(running: Whole) -> None:
    versions = curl(f"{running.url}/universe/versions").json["items"]
    tags = [version["version_tag"] for version in versions]
    assert [tag.partition("-")[0] for tag in tags] == [SYMBOL, SYMBOL, "2025w41", "sample"]
    assert versions[2]["source_meta"] == {"source": "manual"}
    assert versions[1]["source_meta"]["added"] == [SYMBOL]


def test_every_write_is_in_the_audit_log(sql: Sql, admin: str) -> None:
    rows = sql("SELECT who, action, target, request_id IS NOT NULL FROM audit_log ORDER BY id")
    assert {row[0].rpartition(" ")[0] for row in rows} == {"admin key"}
    assert [row[1:] for row in rows[-2:]] == [("symbol.add", SYMBOL, True), ("symbol.change", SYMBOL, True)]
    assert admin.removeprefix("X-API-Key: ") not in str(rows)


def test_a_range_is_queued_once_and_fetched(running: Whole, admin: str, sql: Sql) -> None:
    start, end = MIDNIGHT + timedelta(hours=13), MIDNIGHT + timedelta(hours=15)
    wanted = body(
        f'{{"symbol": "{SYMBOL}", "interval": "1m", "start": "{start:%FT%TZ}", "end": "{end:%FT%TZ}", '
        '"priority": "T0"}'
    )
    accepted = curl("-X", "POST", f"{running.url}/ops/backfill", "-H", admin, *wanted)
    again = curl("-X", "POST", f"{running.url}/ops/backfill", "-H", admin, *wanted)
    assert accepted.status == again.status == 202
    [job] = accepted.json["job_ids"]
    asked = f"SELECT detail->'jobs' FROM audit_log WHERE action = 'backfill.enqueue' AND target = '{SYMBOL}'"
    assert sql(asked) == [([job],)] * 2

    def state() -> Any:
        return curl(f"{running.url}/ops/backfill/{job}").json

    until(lambda: bool(state()["state"] == "done"), 60)
    assert (state()["rows_written"], state()["attempts"]) == (120, 1)
    assert sql(f"SELECT count(*) FROM candles_intraday WHERE {WINDOW}") == [(11,)]
    assert refused(curl(f"{running.url}/ops/backfill/999999"), 404)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("text/csv", "text/csv"),
        ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
    ],
)
def test_bars_come_in_every_form(running: Whole, accept: str, kind: str) -> None:
    query = f"symbol={SYMBOL}&timeframe=1m&start={FIRST:%FT%TZ}&end={LAST:%FT%TZ}"
    answer = curl("-H", f"Accept: {accept}", f"{running.url}/market-data/ohlcv?{query}")
    assert (answer.status, answer.content_type) == (200, kind)
    assert _rows(answer) == 10  # the end is not included


def _rows(answer: Answer) -> int:
    if answer.content_type == "application/json":
        return len(answer.json["items"])
    if answer.content_type == "text/csv":
        return len(answer.body.splitlines()) - 1
    if answer.content_type.endswith("parquet"):
        return int(pq.read_table(io.BytesIO(answer.body)).num_rows)
    return int(pa.ipc.open_stream(answer.body).read_all().num_rows)


def test_bars_are_asked_for_by_a_body_too_and_never_more_than_is_allowed(running: Whole) -> None:
    url = f"{running.url}/market-data/ohlcv"
    wanted = f'"symbol": "{SYMBOL}", "timeframe": "1m", "start": "{FIRST:%FT%TZ}", "end": "{LAST:%FT%TZ}"'
    answer = curl("-X", "POST", url, *body(f"{{{wanted}}}"))
    assert (answer.status, len(answer.json["items"])) == (200, 10)
    assert curl("-X", "POST", url, *body(f'{{{wanted}, "adjusted": "all"}}')).json["adjusted"] == "all"
    assert refused(curl(f"{url}?symbol={SYMBOL}&timeframe=1m&limit=1000000"), 422)
    assert refused(curl(f"{url}?symbol=NOBODY"), 422)


def test_the_price_of_a_symbol_tells_its_age(running: Whole) -> None:
    price = curl(f"{running.url}/stocks/{SYMBOL}/price").json
    assert price["source"] == "synthetic"
    assert price["age_seconds"] > 0
    old = curl(f"{running.url}/stocks/SPX/price").json
    assert (old["ts"], old["stale"]) == ("2018-12-31T14:30:00Z", True)
    assert old["price"] == pytest.approx(2506.85, abs=0.001)  # the last close of 2018


def test_gaps_and_statistics_are_told(running: Whole) -> None:
    before = f"symbol={SYMBOL}&interval=1m&start={FIRST - timedelta(hours=2):%FT%TZ}&end={FIRST:%FT%TZ}"
    gaps = curl(f"{running.url}/gaps?{before}").json["items"]
    assert [(gap["start"], gap["missing"]) for gap in gaps] == [(f"{FIRST - timedelta(hours=2):%FT%TZ}", 60)]
    providers = curl(f"{running.url}/stats/providers").json["items"]
    assert {each["provider"]: each["state"] for each in providers} == {
        "sample": "CLOSED",
        "synthetic": "CLOSED",
    }
    assert {"health_score", "latency_p50_ms", "error_rate", "budget_left", "last_error"} <= providers[
        0
    ].keys()
    tiers = curl(f"{running.url}/stats/cadence").json["items"]
    assert {each["tier"] for each in tiers} >= {"T0"}


def test_the_dead_letter_queue_is_for_administrators(running: Whole, admin: str) -> None:
    url = f"{running.url}/ops/dlq/backfills"
    assert refused(curl(url), 401)
    assert curl("-H", admin, url).json == {"items": [], "next_cursor": None}
    assert refused(curl("-X", "POST", "-H", admin, f"{url}/requeue/999999"), 404)
    assert refused(curl("-X", "DELETE", "-H", admin, f"{url}/999999"), 404)


def test_a_reload_reaches_every_actor(running: Whole, admin: str) -> None:
    before = {process.pid for process in running.instance.processes()}
    answer = curl("-X", "POST", "-H", admin, f"{running.url}/ops/reload")
    assert (answer.status, answer.json["failed"], answer.json["changed"]) == (200, {}, []), answer.body
    assert {"gateway:sample", "gateway:synthetic", "backfill:0", "duties"} <= set(answer.json["reloaded"])
    assert running.json("config", "reload")["config_digest"] == answer.json["config_digest"]
    assert before <= {process.pid for process in running.instance.processes()}  # nothing was started anew


def test_a_deleted_window_is_found_queued_and_restored_with_nobodys_help(
    running: Whole, admin: str, sql: Sql
) -> None:
    curl("-X", "PATCH", f"{running.url}/symbols/{SYMBOL}", "-H", admin, *body('{"active": true}'))
    held = sql(BARS_OF_THE_WINDOW)
    assert sql(f"DELETE FROM candles_intraday WHERE {WINDOW}") == [(11,)]
    until(lambda: len(sql(BARS_OF_THE_WINDOW)) == 11, 120)
    assert [row[:6] for row in sql(BARS_OF_THE_WINDOW)] == [row[:6] for row in held]
    gaps = curl(f"{running.url}/gaps?symbol={SYMBOL}&interval=1m&start={FIRST:%FT%TZ}&end={LAST:%FT%TZ}").json
    assert gaps["items"] == []
    curl("-X", "PATCH", f"{running.url}/symbols/{SYMBOL}", "-H", admin, *body('{"active": false}'))
