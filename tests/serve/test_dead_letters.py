"""GET /ops/dlq/backfills, POST /ops/dlq/backfills/requeue/{id}, DELETE /ops/dlq/backfills/{id}."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

from cluster.market.intervals import Interval
from cluster.settings import Settings
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from tests.serve.conftest import ADMIN_KEY, USER_KEY, started
from tests.serve.test_reload import rows

pytestmark = pytest.mark.postgres

ADMIN = {"X-API-Key": ADMIN_KEY}
PATH = "/ops/dlq/backfills"
URL_WITH_PASSWORD = "postgresql://me:very-secret@db/finsight"


@pytest.fixture
def replica(settings: Settings, database_url: str) -> Iterator[TestClient]:
    """A replica with a dead job of AAPL and one of MSFT."""
    asyncio.run(_bury(database_url))
    with started(settings.model_copy(update={"database_url": database_url})) as client:
        yield client


async def _bury(dsn: str) -> None:
    database = await Database.open(dsn, max_size=1)
    queue = BackfillQueue(database)
    try:
        for symbol in ("AAPL", "MSFT"):
            start, end = datetime(2025, 10, 8, 14, tzinfo=UTC), datetime(2025, 10, 8, 15, tzinfo=UTC)
            await queue.enqueue(symbol, Interval.M1, start, end, tier="T1")
            (lease,) = await queue.claim("worker", 1)
            await queue.fail(lease, f"ProviderDown: {URL_WITH_PASSWORD}", retry_in_s=None)
    finally:
        await database.close()


def listed(replica: TestClient, **query: Any) -> Any:
    answer = replica.get(PATH, params=query, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_dead_jobs_are_listed_with_reason_and_history_and_without_secrets(replica: TestClient) -> None:
    page = listed(replica)
    assert [each["symbol"] for each in page["items"]] == ["MSFT", "AAPL"]
    job = page["items"][1]
    assert (job["state"], job["priority"], job["requeue_count"]) == ("dead", "T1", 0)
    assert [(each["attempt"], each["worker"], each["outcome"]) for each in job["history"]] == [
        (1, "worker", "dead")
    ]
    assert "ProviderDown" in job["reason"]
    assert "very-secret" not in str(page)


def test_dead_jobs_come_page_by_page(replica: TestClient) -> None:
    first = listed(replica, limit=1)
    second = listed(replica, limit=1, cursor=first["next_cursor"])
    assert [page["items"][0]["symbol"] for page in (first, second)] == ["MSFT", "AAPL"]
    assert second["next_cursor"] is None


def test_a_requeued_job_waits_again_and_the_second_call_changes_nothing(replica: TestClient) -> None:
    job = listed(replica)["items"][0]["id"]
    first = replica.post(f"{PATH}/requeue/{job}", headers=ADMIN)
    second = replica.post(f"{PATH}/requeue/{job}", headers=ADMIN)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert (first.json()["job_ids"], first.json()["jobs"][0]["state"]) == ([job], "ready")
    assert [each["symbol"] for each in listed(replica)["items"]] == ["AAPL"]


def test_a_deleted_job_is_gone(replica: TestClient) -> None:
    job = listed(replica)["items"][0]["id"]
    answer = replica.delete(f"{PATH}/{job}", headers=ADMIN)
    assert (answer.status_code, answer.content) == (204, b"")
    assert replica.delete(f"{PATH}/{job}", headers=ADMIN).status_code == 404
    assert replica.post(f"{PATH}/requeue/{job}", headers=ADMIN).status_code == 404


def test_a_job_that_waits_cannot_be_deleted(replica: TestClient) -> None:
    job = listed(replica)["items"][0]["id"]
    replica.post(f"{PATH}/requeue/{job}", headers=ADMIN)
    answer = replica.delete(f"{PATH}/{job}", headers=ADMIN)
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        f"Job {job} is ready; only dead jobs can be deleted.",
    )
    assert replica.get(f"/ops/backfill/{job}").json()["state"] == "ready"


@pytest.mark.parametrize(
    "request_line", [("GET", PATH), ("POST", f"{PATH}/requeue/1"), ("DELETE", f"{PATH}/1")]
)
@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"X-API-Key": "wrong"}, 401), ({"X-API-Key": USER_KEY}, 403)]
)
def test_only_an_administrator_sees_and_changes_them(
    replica: TestClient, request_line: tuple[str, str], headers: dict[str, str], status: int
) -> None:
    answer = replica.request(*request_line, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert len(listed(replica)["items"]) == 2


@pytest.mark.parametrize("job", ["0", "abc", str(2**63)])
def test_an_impossible_id_is_refused(replica: TestClient, job: str) -> None:
    assert replica.post(f"{PATH}/requeue/{job}", headers=ADMIN).status_code == 422
    assert replica.delete(f"{PATH}/{job}", headers=ADMIN).status_code == 422


def test_what_an_administrator_does_to_the_queue_is_in_the_audit_log(
    replica: TestClient, database_url: str
) -> None:
    msft, aapl = (item["id"] for item in listed(replica)["items"])
    replica.post(f"{PATH}/requeue/{msft}", headers={**ADMIN, "X-Request-ID": "r-1"})
    replica.post(f"{PATH}/requeue/{msft}", headers=ADMIN)  # changes nothing
    replica.delete(f"{PATH}/{aapl}", headers=ADMIN)
    replica.delete(f"{PATH}/{aapl}", headers=ADMIN)
    log = rows(database_url, "SELECT action, target, detail->>'symbol' FROM audit_log ORDER BY id")
    assert log == [("dlq.requeue", str(msft), "MSFT"), ("dlq.delete", str(aapl), "AAPL")]
    [(who, request)] = rows(
        database_url, "SELECT who, request_id FROM audit_log WHERE action = 'dlq.requeue'"
    )
    assert (who.startswith("admin key "), request) == (True, "r-1")
