"""GET /stats/cadence and the lag on the page of metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from cluster.market.intervals import Interval
from cluster.settings import Settings
from cluster.storage import sweeps
from cluster.storage.database import Database
from cluster.storage.sweeps import Sweep
from tests.serve.conftest import NOW, started

pytestmark = pytest.mark.postgres

COLLECTION: dict[str, dict[str, float | None]] = {"T0": {"1m": None}, "T1": {"1m": 60.0, "1d": 3_600.0}}


def sweep(
    shard: int, next_run_at: datetime, p50_s: float | None, p99_s: float | None, failed: int = 0
) -> Sweep:
    return Sweep(
        tier="T1",
        interval=Interval.M1,
        shard=shard,
        cadence_s=60.0,
        expected_lag_s=3.5,
        started_at=next_run_at - timedelta(seconds=59),
        finished_at=next_run_at - timedelta(seconds=58),
        next_run_at=next_run_at,
        symbols=10,
        idle=2,
        unserved=1,
        failed=failed,
        bars=7,
        lag_p50_s=p50_s,
        lag_p99_s=p99_s,
    )


async def _record(dsn: str, *some: Sweep) -> None:
    database = await Database.open(dsn, max_size=1)
    for each in some:
        await sweeps.record(database, each)
    await database.close()


@pytest.fixture
def replica(settings: Settings, database_url: str) -> Iterator[TestClient]:
    changes = {"database_url": database_url, "collection": _typed(), "collectors": 2}
    with started(settings.model_copy(update=changes)) as client:
        yield client


def _typed() -> dict[str, dict[Interval, float | None]]:
    return {tier: {Interval(name): each for name, each in some.items()} for tier, some in COLLECTION.items()}


def answered(replica: TestClient) -> list[dict[str, Any]]:
    found = replica.get("/stats/cadence")
    assert found.status_code == 200
    assert found.json()["next_cursor"] is None
    items: list[dict[str, Any]] = found.json()["items"]
    return items


def test_what_was_not_looked_for_yet_is_told_with_its_cadence_only(replica: TestClient) -> None:
    t0, minutes, days = answered(replica)
    assert t0 == {
        "tier": "T0", "interval": "1m", "cadence_s": 30.0, "expected_lag_s": None, "lag_p50_s": None,
        "lag_p99_s": None, "last_run_at": None, "next_run_at": None, "silent_collectors": 2,
        "symbols": 0, "idle": 0, "unserved": 0, "failed": 0, "bars": 0,
    }  # fmt: skip
    assert [(each["interval"], each["cadence_s"]) for each in (minutes, days)] == [
        ("1m", 60.0),
        ("1d", 3_600.0),
    ]


def test_the_shards_are_summed_and_the_slowest_tells_the_lag(replica: TestClient, database_url: str) -> None:
    late, soon = NOW + timedelta(seconds=20), NOW + timedelta(seconds=10)
    asyncio.run(_record(database_url, sweep(0, late, 1.0, 2.0), sweep(1, soon, None, 4.0, failed=3)))
    _, found, _ = answered(replica)
    assert found == {
        "tier": "T1", "interval": "1m", "cadence_s": 60.0, "expected_lag_s": 3.5, "lag_p50_s": 1.0,
        "lag_p99_s": 4.0, "last_run_at": "2019-01-05T11:59:12Z", "next_run_at": "2019-01-05T12:00:10Z",
        "silent_collectors": 0, "symbols": 20, "idle": 4, "unserved": 2, "failed": 3, "bars": 14,
    }  # fmt: skip


def test_a_lag_grows_while_a_look_is_overdue(replica: TestClient, database_url: str) -> None:
    asyncio.run(_record(database_url, sweep(0, NOW - timedelta(seconds=100), 1.0, 2.0)))
    _, found, _ = answered(replica)
    assert (found["lag_p50_s"], found["lag_p99_s"]) == (101.0, 102.0)
    assert found["silent_collectors"] == 1


def test_a_collector_that_is_gone_makes_the_lag_of_its_tier_grow_whatever_the_others_do(
    replica: TestClient, database_url: str
) -> None:
    soon, gone = NOW + timedelta(seconds=10), NOW - timedelta(hours=2)
    asyncio.run(_record(database_url, sweep(0, soon, 1.0, 2.0), sweep(1, gone, 1.0, 2.0)))
    _, found, _ = answered(replica)
    assert (found["lag_p50_s"], found["lag_p99_s"]) == (7_201.0, 7_202.0)
    assert found["last_run_at"] == "2019-01-05T09:59:02Z"


def test_an_empty_tier_has_no_lag_unless_nobody_looks_whether_it_still_is(
    replica: TestClient, database_url: str
) -> None:
    asyncio.run(_record(database_url, sweep(0, NOW + timedelta(seconds=10), None, None)))
    assert answered(replica)[1]["lag_p99_s"] is None
    asyncio.run(_record(database_url, sweep(1, NOW - timedelta(hours=1), None, None)))
    assert answered(replica)[1]["lag_p99_s"] == 3_600.0


def test_the_page_of_metrics_has_the_lag(replica: TestClient, database_url: str) -> None:
    hour = datetime.now(UTC) + timedelta(hours=1)
    asyncio.run(_record(database_url, sweep(0, hour, 1.0, 2.0), sweep(1, hour, 1.0, 2.5)))
    page = replica.get("/metrics").text
    assert 'ingestion_lag_seconds{interval="1m",tier="T1"} 2.5' in page
