"""POST /ops/reload: settings are read anew while replicas run. Gateways are told in tests/ray."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from cluster.bootstrap import Reloaded
from cluster.clock import FakeClock
from cluster.settings import Settings, load
from serve_apps import configuration
from serve_apps.api import create_app
from tests.serve.conftest import ADMIN_KEY, NOW, USER_KEY

pytestmark = pytest.mark.postgres

ADMIN = {"X-API-Key": ADMIN_KEY}
NEW_ADMIN = {"X-API-Key": "the next administrator's key"}


class Files:
    """A configuration file and the settings that it makes, with what never changes beneath it."""

    def __init__(self, path: Path, base: Settings, database_url: str) -> None:
        self._path = path
        self.clock = FakeClock(NOW)
        self._fixed = {
            "home": str(base.home),
            "database_url": database_url,
            "mlflow_tracking_uri": base.mlflow_tracking_uri,
            "model_poll_s": 3600.0,
            "api_key": USER_KEY,
        }
        self.write(admin_api_key=ADMIN_KEY)

    def write(self, **values: Any) -> None:
        self._path.write_text(json.dumps({**self._fixed, **values}))

    def read(self) -> Settings:
        return load(instance=False, environ={"FINSIGHT_CONFIG": str(self._path)})


@pytest.fixture
def files(tmp_path: Path, settings: Settings, database_url: str) -> Files:
    """The files of a cluster whose database is empty."""
    return Files(tmp_path / "config.yaml", settings, database_url)


@pytest.fixture
def replicas(files: Files) -> Iterator[tuple[TestClient, TestClient]]:
    """Two replicas of one cluster."""

    def app() -> FastAPI:
        return create_app(files.read(), clock=files.clock, reread=files.read)

    with TestClient(app()) as first, TestClient(app()) as second:
        yield first, second


def look(replica: TestClient) -> None:
    """Do what the replica does every `model_poll_s` seconds."""
    assert replica.portal is not None
    assert isinstance(replica.app, FastAPI)
    replica.portal.call(replica.app.state.configuration.look)


def symbol_added(replica: TestClient, symbol: str, headers: dict[str, str]) -> int:
    return replica.post(f"/symbols/{symbol}", json={"exchange": "NYSE"}, headers=headers).status_code


def test_a_new_administrators_key_holds_at_once_and_in_every_replica(
    replicas: tuple[TestClient, TestClient], files: Files
) -> None:
    first, second = replicas
    files.write(admin_api_key=NEW_ADMIN["X-API-Key"])
    assert symbol_added(first, "A", NEW_ADMIN) == 401

    answer = first.post("/ops/reload", headers=ADMIN)
    assert (answer.status_code, answer.json()["changed"]) == (200, ["admin_api_key"]), answer.text
    assert (symbol_added(first, "A", ADMIN), symbol_added(first, "A", NEW_ADMIN)) == (401, 201)
    assert (symbol_added(second, "B", NEW_ADMIN), symbol_added(second, "B", ADMIN)) == (401, 201)

    look(second)
    assert (symbol_added(second, "C", ADMIN), symbol_added(second, "C", NEW_ADMIN)) == (401, 201)


def test_a_limit_that_was_changed_holds_for_the_next_request(
    replicas: tuple[TestClient, TestClient], files: Files
) -> None:
    first, _ = replicas
    big = {"features": [[0.0] * 50] * 100, "model_type": "ensemble"}
    assert first.post("/predict", json=big).status_code != 413
    files.write(admin_api_key=ADMIN_KEY, max_body_bytes=1_000)
    first.post("/ops/reload", headers=ADMIN)
    assert first.post("/predict", json=big).status_code == 413


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_data_points": "many"}, "max_data_points (environment MAX_DATA_POINTS) = 'many'"),
        ({"providers": {"sample": {"seed": 1}}}, "sample"),
        ({"providrs": {}}, "unknown setting providrs"),
    ],
)
def test_a_wrong_file_changes_nothing_and_is_told(
    replicas: tuple[TestClient, TestClient], files: Files, values: dict[str, Any], said: str
) -> None:
    first, second = replicas
    files.write(admin_api_key=NEW_ADMIN["X-API-Key"], **values)
    answer = first.post("/ops/reload", headers=ADMIN)
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert "Nothing was changed" in answer.json()["detail"]
    assert said in answer.json()["detail"]
    assert NEW_ADMIN["X-API-Key"] not in answer.text
    look(second)
    assert (symbol_added(first, "A", ADMIN), symbol_added(second, "B", ADMIN)) == (201, 201)


def test_what_only_a_start_can_change_is_told_and_kept(
    replicas: tuple[TestClient, TestClient], files: Files, settings: Settings
) -> None:
    first, _ = replicas
    files.write(admin_api_key=ADMIN_KEY, database_url="postgresql://elsewhere/x", log_level="error")
    answer = first.post("/ops/reload", headers=ADMIN).json()
    assert (answer["changed"], answer["restart_needed"]) == (["log_level"], ["database_url"])
    assert first.get("/symbols").status_code == 200


def test_reloads_are_numbered_and_the_digest_tells_whether_anything_is_new(
    replicas: tuple[TestClient, TestClient], files: Files
) -> None:
    first, second = replicas
    answers = [each.post("/ops/reload", headers=ADMIN).json() for each in (first, first, second)]
    assert [answer["generation"] for answer in answers] == [1, 2, 3]
    assert [answer["changed"] for answer in answers] == [[], [], []]
    files.write(admin_api_key=ADMIN_KEY, finnhub_api_key="k")
    answers.append(first.post("/ops/reload", headers=ADMIN).json())
    assert len({answer["config_digest"] for answer in answers[:3]}) == 1
    assert answers[3]["config_digest"] != answers[2]["config_digest"]


def test_a_replica_whose_file_comes_late_takes_it_over_when_it_is_there(
    replicas: tuple[TestClient, TestClient], files: Files
) -> None:
    first, second = replicas
    files.write(admin_api_key=NEW_ADMIN["X-API-Key"])
    assert first.post("/ops/reload", headers=ADMIN).status_code == 200
    files.write(admin_api_key=ADMIN_KEY)  # the second replica's node still has the old one
    look(second)
    assert symbol_added(second, "A", ADMIN) == 201
    files.write(admin_api_key=NEW_ADMIN["X-API-Key"])
    look(second)
    assert symbol_added(second, "B", NEW_ADMIN) == 201


def test_a_replica_that_gave_up_waiting_takes_nothing_over_but_what_was_reloaded(
    replicas: tuple[TestClient, TestClient], files: Files
) -> None:
    first, second = replicas
    files.write(admin_api_key=NEW_ADMIN["X-API-Key"])
    assert first.post("/ops/reload", headers=ADMIN).status_code == 200
    files.write(admin_api_key=ADMIN_KEY)  # the file of the second replica's node, for minutes
    for _ in range(31):
        look(second)
    files.write(admin_api_key="what somebody writes at this moment")
    files.clock.advance(61)
    look(second)
    assert symbol_added(second, "A", ADMIN) == 201
    files.write(admin_api_key=NEW_ADMIN["X-API-Key"])
    look(second)
    assert symbol_added(second, "B", NEW_ADMIN) == 401  # not looked at again so soon
    files.clock.advance(61)
    look(second)
    assert symbol_added(second, "C", NEW_ADMIN) == 201


def test_replicas_that_have_what_was_reloaded_tell_the_actors_until_all_have_taken_it_over(
    replicas: tuple[TestClient, TestClient], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    failed = {"gateway:sample": "did not answer within 20 s"}

    def tell(settings: Settings) -> Reloaded:
        told.append(settings.log_level)
        return Reloaded([], [], [], dict(failed))

    first, second = replicas
    files.write(admin_api_key=ADMIN_KEY, log_level="error")
    assert first.post("/ops/reload", headers=ADMIN).status_code == 200
    files.write(admin_api_key=ADMIN_KEY)  # the second replica's node has the old one, and keeps it
    monkeypatch.setattr(configuration, "_tell_actors", tell)
    for replica in (first, second):
        assert isinstance(replica.app, FastAPI)
        replica.app.state.services.on_ray = True
    for _ in range(31):
        look(second)
    assert told == []
    look(first)
    look(first)
    assert told == ["error", "error"]
    failed.clear()
    look(first)
    look(first)
    assert told == ["error"] * 3


def test_a_look_that_fails_in_any_way_is_not_the_last(
    settings: Settings, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = threading.Semaphore(0)

    async def failing(_: configuration.Configuration) -> None:
        looks.release()
        raise ConnectionError("Ray's control service is away")

    monkeypatch.setattr(configuration.Configuration, "look", failing)
    polled = files.read().model_copy(update={"model_poll_s": 0.01})
    with TestClient(create_app(polled, clock=files.clock, reread=files.read)):
        assert all(looks.acquire(timeout=30) for _ in range(3))


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"X-API-Key": USER_KEY}, 403)])
def test_only_an_administrator_may_reload(
    replicas: tuple[TestClient, TestClient], headers: dict[str, str], status: int, database_url: str
) -> None:
    assert replicas[0].post("/ops/reload", headers=headers).status_code == status
    assert rows(database_url, "SELECT count(*) FROM config_generations") == [(0,)]


def test_a_reload_is_in_the_audit_log_without_any_key(
    replicas: tuple[TestClient, TestClient], files: Files, database_url: str
) -> None:
    files.write(admin_api_key=NEW_ADMIN["X-API-Key"], finnhub_api_key="very-secret")
    headers = {**ADMIN, "X-Request-ID": "r-1"}
    replicas[0].post("/ops/reload", headers=headers)
    ((who, action, target, detail, request_id, address),) = rows(
        database_url, "SELECT who, action, target, detail, request_id, address FROM audit_log"
    )
    assert who.startswith("admin key ")
    assert (action, target, request_id, address) == ("config.reload", "1", "r-1", "testclient")
    assert detail["changed"] == ["admin_api_key", "finnhub_api_key"]
    assert "very-secret" not in str(detail)
    assert ADMIN_KEY not in who


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What the database answers."""
    connection = psycopg2.connect(dsn)
    try:
        cursor = connection.cursor()
        cursor.execute(query)
        return list(cursor.fetchall())
    finally:
        connection.close()
