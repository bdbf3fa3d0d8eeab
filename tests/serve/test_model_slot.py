from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cluster.errors import BundleRejected, NotReady
from cluster.settings import Settings
from serve_apps.model_slot import ModelSlot
from tests.serve.conftest import look_for_a_model, started
from training import registry
from training.predictor import Predictor


class Registry:
    """A registry whose champion and whose files a test chooses."""

    def __init__(self, model: Predictor) -> None:
        self.champion: str | Exception | None = None
        self.broken: set[str] = set()
        self.loaded: list[str] = []
        self._model = model

    def ask(self) -> str | None:
        if isinstance(self.champion, Exception):
            raise self.champion
        return self.champion

    def load(self, version: str) -> Predictor:
        self.loaded.append(version)
        if version in self.broken:
            raise BundleRejected("scaler.json is not what the manifest says")
        return self._model


@pytest.fixture
def source(model: Predictor) -> Registry:
    return Registry(model)


@pytest.fixture
def slot(source: Registry) -> ModelSlot:
    return ModelSlot(source.ask, source.load, poll_s=3600)


async def test_before_the_first_look_the_model_is_being_loaded(slot: ModelSlot) -> None:
    with pytest.raises(NotReady, match="still being loaded"):
        slot.require()


async def test_without_a_champion_it_says_how_to_get_one(slot: ModelSlot) -> None:
    await slot.refresh()
    with pytest.raises(NotReady, match="No model has been promoted yet"):
        slot.require()


async def test_a_champion_is_loaded_once(slot: ModelSlot, source: Registry) -> None:
    source.champion = "1"
    for _ in range(3):
        await slot.refresh()
    assert slot.require() is slot.current
    assert source.loaded == ["1"]


async def test_a_refused_version_keeps_the_old_model_and_is_not_tried_again(
    slot: ModelSlot, source: Registry
) -> None:
    source.champion = "1"
    await slot.refresh()
    before = slot.require()
    source.champion, source.broken = "2", {"2"}
    await slot.refresh()
    await slot.refresh()

    assert slot.require() is before
    assert source.loaded == ["1", "2"]
    source.champion = "3"
    await slot.refresh()
    assert source.loaded == ["1", "2", "3"]


async def test_a_refused_first_version_says_why_there_is_no_model(slot: ModelSlot, source: Registry) -> None:
    source.champion, source.broken = "1", {"1"}
    await slot.refresh()
    with pytest.raises(NotReady, match="Version 1 was refused, its files are not sound: scaler"):
        slot.require()


async def test_a_registry_out_of_reach_keeps_the_old_model(slot: ModelSlot, source: Registry) -> None:
    source.champion = "1"
    await slot.refresh()
    source.champion = ConnectionError("no route")
    await slot.refresh()
    assert slot.current is not None


async def test_when_it_comes_back_the_first_model_is_loaded(slot: ModelSlot, source: Registry) -> None:
    source.champion = ConnectionError("no route")
    await slot.refresh()
    with pytest.raises(NotReady, match="no route"):
        slot.require()
    source.champion = "1"
    await slot.refresh()
    assert slot.current is not None


def test_a_replica_without_a_model_says_finsight_train(settings: Settings) -> None:
    with started(settings.model_copy(update={"model_name": "unheard-of"})) as client:
        answer = client.post("/predict", json={"features": [0.1] * 50})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "`finsight train`" in answer.json()["detail"]


def test_a_replica_serves_the_bundle_in_model_dir(settings: Settings, bundle_dir: Path) -> None:
    own = settings.model_copy(update={"model_dir": bundle_dir, "mlflow_tracking_uri": None})
    with started(own) as client:
        answer = client.post("/predict", json={"features": [0.1] * 50})
    assert answer.status_code == 200
    assert answer.json()["model"]["name"] == "tiny"


def test_a_replica_follows_the_champion_and_refuses_spoiled_files(
    settings: Settings, bundle_dir: Path, tmp_path: Path
) -> None:
    assert settings.mlflow_tracking_uri is not None
    uri, name = settings.mlflow_tracking_uri, "followed"
    own = settings.model_copy(update={"model_name": name, "home": tmp_path})
    registry.promote(name, _registered(bundle_dir, uri, name), uri)
    with started(own) as client:
        served = [_version(client)]
        registry.promote(name, _registered(bundle_dir, uri, name), uri)
        look_for_a_model(client)
        served.append(_version(client))

        spoiled = shutil.copytree(bundle_dir, tmp_path / "spoiled")
        (spoiled / "scaler.json").write_bytes(b"{}")
        registry.promote(name, _registered(spoiled, uri, name), uri)
        look_for_a_model(client)
        served.append(_version(client))
    assert served == ["1", "2", "2"]


def _registered(bundle_dir: Path, uri: str, name: str) -> str:
    return registry.register(
        bundle_dir, name=name, tracking_uri=uri, run_name="test", params={}, metrics={"mae": 0.01}
    )


def _version(client: TestClient) -> str:
    answer = client.post("/predict", json={"features": [0.1] * 50})
    version: str = answer.json()["model"]["version"]
    return version
