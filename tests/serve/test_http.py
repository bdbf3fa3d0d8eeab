"""What holds for every path: problems, caps, request ids, documentation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from cluster import metrics

JSON = {"Content-Type": "application/json"}
SERVED = {
    ("GET", "/stocks/{symbol}/price"),
    ("GET", "/market-data/ohlcv"),
    ("POST", "/market-data/ohlcv"),
    ("GET", "/symbols"),
    ("POST", "/symbols/{symbol}"),
    ("PATCH", "/symbols/{symbol}"),
    ("GET", "/universe/versions"),
    ("GET", "/gaps"),
    ("POST", "/predict"),
    ("GET", "/models"),
    ("GET", "/models/{name}"),
    ("GET", "/models/{name}/versions"),
    ("GET", "/health"),
    ("GET", "/health/detailed"),
    ("GET", "/metrics"),
    ("GET", "/stats/providers"),
    ("GET", "/stats/cadence"),
    ("POST", "/ops/reload"),
    ("POST", "/ops/backfill"),
    ("GET", "/ops/backfill/{id}"),
    ("GET", "/ops/dlq/backfills"),
    ("POST", "/ops/dlq/backfills/requeue/{id}"),
    ("DELETE", "/ops/dlq/backfills/{id}"),
}


def test_the_served_paths_are_those_of_the_document(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    documented = {
        (method.upper(), path) for path, operations in document["paths"].items() for method in operations
    }

    assert document["openapi"].startswith("3.1")
    assert documented == SERVED
    for method, path in documented:
        answer = client.request(method, path.format(name="finsight-1d", id=1, symbol="SPX"))
        assert answer.status_code != 405, path
        assert "Nothing is served" not in answer.text, path


def test_every_reference_of_the_document_leads_somewhere(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    references = set(_references(document))
    assert "#/components/schemas/PredictRequest" in references
    missing = [
        each for each in references if each.rpartition("/")[2] not in document["components"]["schemas"]
    ]
    assert missing == []


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_writing_asks_for_a_key_in_the_document(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/ops/backfill"]["post"]
    assert operation["security"] == [{"APIKeyHeader": []}, {"HTTPBearer": []}]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_comes_from_this_machine_only(client: TestClient, page: str) -> None:
    answer = client.get(page)

    assert answer.status_code == 200
    assert "http:" not in answer.text
    assert "https:" not in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', answer.text)
    assert len(assets) >= 2
    for asset in assets:
        assert client.get(asset).status_code == 200, asset


def test_an_unknown_path_is_a_problem(client: TestClient) -> None:
    answer = client.get("/nothing/here")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["detail"] == "Nothing is served at /nothing/here. See /docs for every path."


def test_a_wrong_method_is_a_problem_that_names_the_right_one(client: TestClient) -> None:
    answer = client.get("/predict")
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
    assert answer.json()["detail"] == "/predict does not answer GET. Allowed: POST."


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/market-data/ohlcv", "GET, HEAD, POST"),
        ("GET", "/symbols/SPX", "PATCH, POST"),
        ("POST", "/gaps", "GET, HEAD"),
        ("HEAD", "/predict", "POST"),
    ],
)
def test_every_method_of_a_path_is_allowed(client: TestClient, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("path", ["/health", "/market-data/ohlcv?symbol=SPX", "/symbols?limit=0", "/nothing"])
def test_head_is_answered_like_get_without_the_body(client: TestClient, path: str) -> None:
    got, answer = client.get(path), client.head(path)
    assert (answer.status_code, answer.content) == (got.status_code, b"")
    mine = {"x-request-id", "date"}
    assert {n: v for n, v in answer.headers.items() if n not in mine | {"content-length"}} == {
        n: v for n, v in got.headers.items() if n not in mine | {"content-length"}
    }


def test_head_is_counted_as_such(client: TestClient) -> None:
    labels = {"route": "/health", "method": "HEAD", "status": "200"}
    before = metrics.REGISTRY.get_sample_value("http_requests_total", labels) or 0.0
    client.head("/health")
    assert metrics.REGISTRY.get_sample_value("http_requests_total", labels) == before + 1


def test_a_request_id_is_kept_when_it_is_harmless_and_replaced_when_not(client: TestClient) -> None:
    assert client.get("/health", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for given in ("a b", "x" * 65, 'a"b'):
        made = client.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


def test_a_declared_length_over_the_cap_is_refused_before_the_body_is_read(client: TestClient) -> None:
    answer = client.post("/predict", content=b"{}", headers={**JSON, "Content-Length": "1000001"})
    assert answer.status_code == 413
    assert "larger than 1000000 bytes" in answer.json()["detail"]


def test_a_chunked_body_is_refused_as_soon_as_it_is_over_the_cap(client: TestClient) -> None:
    answer = client.post("/predict", content=iter([b"[" + b"0," * 300_000] * 2), headers=JSON)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/csv"}, {"Content-Type": ""}, {**JSON, "Content-Encoding": "gzip"}]
)
def test_only_plain_json_is_read(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/predict", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["detail"]


def test_an_unexpected_error_shows_nothing_of_itself(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("serve_apps.prediction.forecast", broken)
    answer = client.post("/predict", json={"features": [0.1] * 50})

    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


async def _predict(client: TestClient, *parts: Message) -> list[Message]:
    """What the app sends for a body that arrives in these parts, and then no further."""
    arriving, sent = list(parts), []

    async def receive() -> Message:
        return arriving.pop(0) if arriving else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await client.app(scope, receive, send)
    return sent


def test_a_sender_that_goes_away_is_no_error_of_ours(client: TestClient) -> None:
    def counted(status: int) -> float:
        labels = {"route": "/predict", "method": "POST", "status": str(status)}
        return metrics.REGISTRY.get_sample_value("http_requests_total", labels) or 0.0

    before = counted(499), counted(500)
    assert client.portal is not None
    half = {"type": "http.request", "body": b"{", "more_body": True}
    assert client.portal.call(_predict, client, half, {"type": "http.disconnect"}) == []
    assert (counted(499), counted(500)) == (before[0] + 1, before[1])


def test_a_body_that_never_ends_is_not_waited_for(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_apps.body.TIMEOUT_S", 0.05)
    assert client.portal is not None
    half = {"type": "http.request", "body": b"{", "more_body": True}
    start, body = client.portal.call(_predict, client, half)
    assert start["status"] == 408
    assert b"did not arrive within 0.05 s" in body["body"]
