from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from starlette.testclient import TestClient

from cluster.settings import Settings
from serve_apps import dependencies
from tests.serve.conftest import started


class _MlflowHealth(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def http_server() -> Iterator[str]:
    """A server that answers `/health` as MLflow does."""
    server = HTTPServer(("127.0.0.1", 0), _MlflowHealth)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_health_is_the_documented_envelope(client: TestClient) -> None:
    answer = client.get("/health").json()
    assert answer["success"] is True
    assert answer["data"] == {
        "status": "healthy",
        "service": "finsight",
        "version": "0.1.0",
        "timestamp": "2019-01-05T12:00:00Z",
    }


def test_what_answers_is_connected(settings: Settings, valkey_url: str, http_server: str) -> None:
    ready = settings.model_copy(update={"redis_url": valkey_url, "mlflow_tracking_uri": http_server})
    with started(ready) as client:
        answer = client.get("/health/detailed")

    found = answer.json()["data"]["dependencies"]
    assert answer.status_code == 200
    assert {name: each["state"] for name, each in found.items()} == {
        "postgres": "connected",
        "redis": "connected",
        "ray": "down",  # this process is not on Ray, and neither is a gateway
        "mlflow": "connected",
        "sample": "down",
    }
    assert all(each["latency_ms"] >= 0 for each in found.values())
    assert found["sample"]["detail"] == "gateways run on Ray, and this process does not"


def test_without_its_database_the_service_lives_but_is_not_well(settings: Settings) -> None:
    dead = settings.model_copy(update={"database_url": "postgresql://someone:very-secret@127.0.0.1:9/none"})
    with started(dead) as client:
        answer = client.get("/health/detailed")
        alive = client.get("/health")
        symbol = client.post("/predict", json={"symbol": "SPX"})
        features = client.post("/predict", json={"features": [0.1] * 50})

    assert alive.status_code == 200
    assert answer.status_code == 503
    assert answer.json()["success"] is False
    assert answer.json()["data"]["status"] == "unhealthy"
    assert answer.json()["data"]["dependencies"]["postgres"]["state"] == "down"
    assert (symbol.status_code, symbol.headers["retry-after"]) == (503, "2")
    assert "127.0.0.1:9/none cannot be reached" in symbol.json()["detail"]
    assert features.status_code == 200  # needs no database
    assert "very-secret" not in answer.text + symbol.text


def test_a_check_that_hangs_even_when_cancelled_is_down_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = asyncio.Event()

    async def look() -> dependencies.Finding:
        try:
            await frozen.wait()
        finally:
            await frozen.wait()  # as a pool waits for a server that is stopped
        return "connected", None

    async def found() -> str | None:
        each = await dependencies.timed(dependencies.Check(look))
        frozen.set()
        return f"{each.state}: {each.detail}"

    monkeypatch.setattr("serve_apps.dependencies._TIMEOUT_S", 0.05)
    assert asyncio.run(found()) == "down: no answer within 0.05 s"
