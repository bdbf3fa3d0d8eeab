from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import BundleRejected, ConfigError, ModelNotFound, NotRunning
from tests.unit.training import samples
from training import registry
from training.predictor import Predictor

NAME = "finsight-test"


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real MLflow store in a database file; artifacts beside it."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment(registry.EXPERIMENT, artifact_location=str(folder / "artifacts"))
    return uri


def register(bundle_dir: Path, tracking_uri: str, name: str) -> str:
    return registry.register(
        bundle_dir,
        name=name,
        tracking_uri=tracking_uri,
        run_name="a test",
        params={"seed": 3, "symbols": "AAA,BBB"},
        metrics={"mae": 0.0125},
    )


def load(tracking_uri: str, name: str, cache: Path, alias_or_version: str = "champion") -> Predictor:
    return registry.load(
        name,
        tracking_uri=tracking_uri,
        alias_or_version=alias_or_version,
        cache_dir=cache,
        feature_digest=samples.DIGEST,
    )


def test_a_registered_model_comes_back_as_it_was(bundle_dir: Path, tracking_uri: str, tmp_path: Path) -> None:
    rows = np.ones((1, 4), np.float32)
    version = register(bundle_dir, tracking_uri, NAME)
    assert registry.champion(NAME, tracking_uri) is None

    registry.promote(NAME, version, tracking_uri)
    loaded = load(tracking_uri, NAME, tmp_path / "cache")

    assert (loaded.name, loaded.version) == (NAME, version)
    assert registry.champion(NAME, tracking_uri) == version
    direct = registry.load(bundle_dir, feature_digest=samples.DIGEST)
    np.testing.assert_array_equal(loaded.predict(rows).mean, direct.predict(rows).mean)


def test_versions_carry_signature_metrics_and_aliases(bundle_dir: Path, tracking_uri: str) -> None:
    name = "finsight-versions"
    old, new = register(bundle_dir, tracking_uri, name), register(bundle_dir, tracking_uri, name)
    registry.promote(name, old, tracking_uri)

    newest, oldest = registry.versions(name, tracking_uri)

    assert (newest.version, oldest.version) == (new, old)
    assert (newest.aliases, oldest.aliases) == ((), ("champion",))
    assert newest.feature_names == samples.NAMES
    assert (newest.window, newest.horizon, newest.interval, newest.coverage) == (16, 1, "1d", 0.9)
    assert newest.metrics == {"mae": 0.0125}
    assert newest.training_range["start"] == "2001-01-21T00:00:00.000000Z"
    [model] = [model for model in registry.models(tracking_uri) if model.name == name]
    assert (model.aliases, model.latest) == ({"champion": old}, new)


def test_any_version_can_be_loaded_by_number(bundle_dir: Path, tracking_uri: str, tmp_path: Path) -> None:
    name = "finsight-by-number"
    version = register(bundle_dir, tracking_uri, name)

    assert load(tracking_uri, name, tmp_path / "cache", version).version == version


def test_a_version_of_somebody_else_is_not_listed_and_not_loaded(
    bundle_dir: Path, tracking_uri: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    name = "finsight-shared"
    ours = register(bundle_dir, tracking_uri, name)
    client = MlflowClient(tracking_uri)
    client.set_model_version_tag(name, ours, "reviewed by", "somebody")
    foreign = client.create_model_version(name, source=str(tmp_path))

    assert [version.version for version in registry.versions(name, tracking_uri)] == [ours]
    with pytest.raises(BundleRejected, match="not registered by FinSight"):
        load(tracking_uri, name, tmp_path / "cache", str(foreign.version))


def test_a_registration_that_fails_leaves_a_failed_run(bundle_dir: Path, tracking_uri: str) -> None:
    from mlflow import MlflowClient

    with pytest.raises(NotRunning, match="MLflow at sqlite"):
        register(bundle_dir, tracking_uri, "a/bad/name")

    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name(registry.EXPERIMENT)
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id], "tags.`finsight.model` = 'a/bad/name'")
    assert run.info.status == "FAILED"


def test_a_missing_model_version_or_alias_names_the_command(tracking_uri: str, bundle_dir: Path) -> None:
    name = "finsight-no-champion"
    register(bundle_dir, tracking_uri, name)

    for attempt in (
        lambda: load(tracking_uri, "nobody", Path("unused")),
        lambda: load(tracking_uri, name, Path("unused")),
        lambda: load(tracking_uri, name, Path("unused"), "77"),
        lambda: registry.promote(name, "77", tracking_uri),
        lambda: registry.versions("nobody", tracking_uri),
    ):
        with pytest.raises(ModelNotFound, match="finsight train"):
            attempt()


def test_the_second_load_comes_from_the_cache(
    bundle_dir: Path, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "finsight-cached"
    registry.promote(name, register(bundle_dir, tracking_uri, name), tracking_uri)
    load(tracking_uri, name, tmp_path / "cache")

    monkeypatch.delattr("mlflow.MlflowClient.download_artifacts")
    assert load(tracking_uri, name, tmp_path / "cache").version == "1"


@pytest.mark.parametrize("file", ["scaler.json", "manifest.json"])
@pytest.mark.parametrize("damage", [lambda path: path.write_text("{}"), Path.unlink], ids=["other", "none"])
def test_a_damaged_copy_in_the_cache_is_downloaded_again(
    bundle_dir: Path, tracking_uri: str, tmp_path: Path, file: str, damage: Callable[[Path], object]
) -> None:
    name = "finsight-damaged"
    registry.promote(name, register(bundle_dir, tracking_uri, name), tracking_uri)
    load(tracking_uri, name, tmp_path / "cache")
    [cached] = (tmp_path / "cache" / name).iterdir()
    whole = (cached / file).read_bytes()
    damage(cached / file)

    load(tracking_uri, name, tmp_path / "cache")
    assert (cached / file).read_bytes() == whole


@pytest.mark.parametrize(
    ("file", "text"), [("scaler.json", r"scaler\.json"), ("manifest.json", "not the manifest")]
)
def test_files_that_were_exchanged_after_registration_are_refused(
    bundle_dir: Path, tracking_uri: str, tmp_path: Path, file: str, text: str
) -> None:
    name = "finsight-exchanged"
    registry.promote(name, register(bundle_dir, tracking_uri, name), tracking_uri)
    [version] = [each for each in registry.versions(name, tracking_uri) if "champion" in each.aliases]
    kept = Path(tracking_uri.removeprefix("sqlite:///")).parent / "artifacts" / version.run_id / "artifacts"
    (kept / registry.ARTIFACT / file).write_text("{}")

    for _ in range(2):  # the second time there is a copy in the cache
        with pytest.raises(BundleRejected, match=text):
            load(tracking_uri, name, tmp_path / "cache")


def test_a_server_that_does_not_answer_is_not_a_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(NotRunning, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        registry.champion(NAME, "http://127.0.0.1:9")  # the discard port: nothing listens there


def test_without_a_tracking_uri_a_name_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        registry.load(NAME)
