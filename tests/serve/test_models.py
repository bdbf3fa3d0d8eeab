from __future__ import annotations

import socket
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cluster.settings import Settings
from tests.serve.conftest import MODEL, register, started
from training.predictor import Predictor


def test_a_model_tells_its_signature_range_metrics_and_aliases(client: TestClient, model: Predictor) -> None:
    answer = client.get(f"/models/{MODEL}").json()

    assert (answer["name"], answer["aliases"], answer["serving"]) == (MODEL, {"champion": "1"}, "1")
    version = answer["version"]
    assert version["version"] == "1"
    assert version["aliases"] == ["champion"]
    assert version["signature"] == {
        "feature_names": list(model.feature_names),
        "window": 16,
        "horizon": 1,
        "interval": "1d",
        "coverage": 0.9,
    }
    assert version["metrics"] == {"mae": 0.01}
    assert version["symbols"] == ["SPX"]
    assert version["training_range"] == model.manifest["training_range"]


def test_models_and_versions_are_listed_by_page(settings: Settings, bundle_dir: Path) -> None:
    assert settings.mlflow_tracking_uri is not None
    newer = register(bundle_dir, settings.mlflow_tracking_uri)
    with started(settings) as client:
        models = client.get("/models").json()
        first = client.get(f"/models/{MODEL}/versions", params={"limit": 1}).json()
        second = client.get(
            f"/models/{MODEL}/versions", params={"limit": 1, "cursor": first["next_cursor"]}
        ).json()

    assert MODEL in [model["name"] for model in models["items"]]
    assert models["next_cursor"] is None
    assert [each["version"] for each in first["items"]] == [newer]
    assert second["items"][0]["version"] == str(int(newer) - 1)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/models/unheard-of", 404, "model unheard-of is not registered; `finsight train` makes one"),
        ("/models/unheard-of/versions", 404, "is not registered"),
        ("/models/a%20b", 422, "path name"),
        ("/models/..%2F..%2Fetc", 404, "Nothing is served"),
        ("/models?cursor=%00", 422, "expected the `next_cursor` of an earlier page"),
        ("/models?cursor=bm9uZQ", 422, "start again without a cursor"),
        ("/models?limit=0", 422, "query limit"),
    ],
)
def test_what_is_not_there_is_a_problem(client: TestClient, path: str, status: int, text: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert text in answer.json()["detail"]


def test_without_a_registry_models_are_out_of_reach_and_nothing_leaks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    dead = settings.model_copy(update={"mlflow_tracking_uri": "http://user:very-secret@127.0.0.1:9"})
    with started(dead) as client:
        answer = client.get("/models")
    assert answer.status_code == 503
    assert "very-secret" not in answer.text


def test_a_registry_that_hangs_is_not_waited_for(
    settings: Settings, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("serve_apps.routes.models._TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hanging = settings.model_copy(update={"mlflow_tracking_uri": uri, "model_dir": bundle_dir})
        with started(hanging) as client:
            answers = [client.get("/models") for _ in range(10)]
            predicted = client.post("/predict", json={"symbol": "SPX"})

    assert {answer.status_code for answer in answers} == {503}
    assert answers[-1].json()["detail"] == "The model registry does not answer within 0.2 s."
    assert predicted.status_code == 200


def test_without_any_registry_the_missing_setting_is_named(settings: Settings, bundle_dir: Path) -> None:
    alone = settings.model_copy(update={"mlflow_tracking_uri": None, "model_dir": bundle_dir})
    with started(alone) as client:
        answer = client.get("/models")
    assert answer.status_code == 503
    assert "MLFLOW_TRACKING_URI is not set" in answer.json()["detail"]
