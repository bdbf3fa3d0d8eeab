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
from tests.conftest import execute
from tests.serve.conftest import ADMIN_KEY, USER_KEY, started

ADMIN = {"X-API-Key": ADMIN_KEY}
YEAR = {"symbol": "SPX", "interval": "1d", "start": "2017-01-01T00:00:00Z", "end": "2018-01-01T00:00:00Z"}


@pytest.fixture
def replica(settings: Settings, database_url: str) -> Iterator[TestClient]:
    """A replica with a database of its own that knows SPX and has nothing else."""
    asyncio.run(_know_spx(database_url))
    with started(settings.model_copy(update={"database_url": database_url})) as client:
        yield client


async def _know_spx(dsn: str) -> None:
    database = await Database.open(dsn, max_size=1)
    try:
        await universe.add(database, Instrument("SPX", "INDEX", "index", "XNYS"))
    finally:
        await database.close()


def enqueue(replica: TestClient, **changes: Any) -> dict[str, Any]:
    answer = replica.post("/ops/backfill", json={**YEAR, **changes}, headers=ADMIN)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_range_becomes_a_job_that_can_be_looked_at(replica: TestClient) -> None:
    accepted = enqueue(replica, priority="T1")

    (job,) = accepted["jobs"]
    assert accepted["job_ids"] == [job["id"]]
    assert {name: job[name] for name in ("symbol", "interval", "start", "end", "priority", "state")} == {
        **YEAR,
        "priority": "T1",
        "state": "ready",
    }
    assert (job["attempts"], job["rows_written"], job["finished_at"]) == (0, None, None)
    assert replica.get(f"/ops/backfill/{job['id']}").json() == job


def test_the_same_range_again_answers_the_job_that_is_there(replica: TestClient) -> None:
    first = enqueue(replica)
    assert enqueue(replica)["job_ids"] == first["job_ids"]
    inner = enqueue(replica, start="2017-02-01T00:00:00Z", end="2017-03-01T00:00:00Z")
    assert inner["job_ids"] == first["job_ids"]


def test_a_bearer_token_is_as_good_as_the_header(replica: TestClient) -> None:
    answer = replica.post("/ops/backfill", json=YEAR, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "", 401),
        ({"X-API-Key": "wrong"}, "", 401),
        ({"X-API-Key": ""}, "", 401),
        ({"Authorization": "Bearer wrong"}, "", 401),
        ({"Authorization": f"Basic {ADMIN_KEY}"}, "", 401),
        ({}, f"?api_key={ADMIN_KEY}", 401),
        ({"X-API-Key": USER_KEY}, "", 403),
    ],
)
def test_only_an_administrator_may_enqueue(
    replica: TestClient, served_jobs: Any, headers: dict[str, str], query: str, status: int
) -> None:
    answer = replica.post(f"/ops/backfill{query}", json=YEAR, headers=headers)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert ADMIN_KEY not in answer.text
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert served_jobs() == 0


def test_all_refusals_of_unknown_keys_look_alike(replica: TestClient) -> None:
    answers = [
        replica.post("/ops/backfill", json=YEAR, headers={**headers, "X-Request-ID": "same"})
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"})
    ]
    assert len({answer.text for answer in answers}) == 1


@pytest.fixture
def served_jobs(database_url: str) -> Any:
    """Counts the rows of the queue."""
    return lambda: asyncio.run(_count(database_url))


async def _count(dsn: str) -> int:
    database = await Database.open(dsn, max_size=1)
    try:
        async with database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM backfill_jobs"))
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"end": "2016-01-01T00:00:00Z"}, "must be after start"),
        ({"end": YEAR["start"]}, "must be after start"),
        ({"start": "1917-01-01T00:00:00Z"}, "at most 50 years"),
        ({"start": "9998-01-01T00:00:00Z", "end": "9999-01-01T00:00:00Z"}, "lies in the future"),
        ({"start": "0001-01-01T00:00:00Z", "end": "0002-01-01T00:00:00Z"}, "a year from 1800 to 8999"),
        ({"start": "0001-01-01T00:00:00+14:00"}, "before the year 1"),
        ({"end": "9999-12-31T23:59:59-14:00"}, "after the year 9999"),
        ({"start": "2017-01-01T00:00:00"}, "#/start: Input should have timezone info"),
        ({"symbol": "AAPL"}, "AAPL is not in the universe"),
        ({"symbol": "SPX'; DROP TABLE backfill_jobs;--"}, "#/symbol"),
        ({"interval": "7m"}, "#/interval"),
        ({"priority": "T9"}, "#/priority"),
        ({"tier": "T0"}, "#/tier"),
    ],
)
def test_an_impossible_range_is_refused_and_nothing_is_queued(
    replica: TestClient, served_jobs: Any, changes: dict[str, str], text: str
) -> None:
    answer = replica.post("/ops/backfill", json={**YEAR, **changes}, headers=ADMIN)
    assert (answer.status_code, text in answer.json()["detail"]) == (422, True), answer.text
    assert served_jobs() == 0


@pytest.mark.parametrize(("job", "status"), [("999", 404), ("0", 422), ("abc", 422), (str(2**63), 422)])
def test_a_job_that_is_not_there_is_a_problem(replica: TestClient, job: str, status: int) -> None:
    answer = replica.get(f"/ops/backfill/{job}")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_table_that_is_gone_is_our_fault_and_says_nothing(replica: TestClient, database_url: str) -> None:
    execute(database_url, "ALTER TABLE backfill_jobs RENAME TO moved")
    answer = replica.post("/ops/backfill", json=YEAR, headers=ADMIN)
    assert answer.status_code == 500
    assert "backfill_jobs" not in answer.text
