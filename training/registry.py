"""Registered models in MLflow: MLflow keeps the record and the files, our own loader reads them.

Nothing of a registry is ever unpickled: `mlflow.pyfunc` is not used; a version's files are downloaded into a
local cache and verified against the bundle manifest, whose hash the version's tag states.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import settings
from cluster.errors import BundleRejected, ModelNotFound, NotRunning
from training import bundle, predictor, registered
from training.predictor import Predictor
from training.registered import ModelVersion, RegisteredModel

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
EXPERIMENT = "finsight-training"
ARTIFACT = "bundle"

CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default it retries for minutes before it says a word
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for data
}
"""Set in the environment, where MLflow reads them, unless they are set already."""


def register(
    bundle_dir: Path,
    *,
    name: str,
    tracking_uri: str,
    run_name: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> str:
    """Record a training run with the bundle's files and register it; the new version number.

    The version gets the bundle's facts as tags; no alias is moved (see `promote`).
    """
    tags = registered.tags_of(bundle_dir, metrics)
    with _client(tracking_uri) as client:
        run = client.create_run(_experiment(client), run_name=run_name, tags={"finsight.model": name})
        status = "FAILED"
        try:
            _record(client, run.info.run_id, bundle_dir, params, metrics)
            _ensure_model(client, name)
            source = f"{run.info.artifact_uri}/{ARTIFACT}"
            created = client.create_model_version(
                name, source, run.info.run_id, tags=tags, await_creation_for=0
            )
            status = "FINISHED"
        finally:
            client.set_terminated(run.info.run_id, status)
    return str(created.version)


def promote(name: str, version: str, tracking_uri: str, alias: str = CHAMPION) -> None:
    """Point `alias` at `version`. ModelNotFound when there is none."""
    with _client(tracking_uri, f"version {version} of model {name}") as client:
        client.get_model_version(name, version)
        client.set_registered_model_alias(name, alias, version)


def models(tracking_uri: str) -> list[RegisteredModel]:
    """All registered models, by name."""
    with _client(tracking_uri) as client:
        return [
            registered.model_of(raw) for raw in _pages(client.search_registered_models, order_by=["name ASC"])
        ]


def model(name: str, tracking_uri: str) -> RegisteredModel:
    """One registered model. ModelNotFound when the name is not registered."""
    with _client(tracking_uri, f"model {name}") as client:
        return registered.model_of(client.get_registered_model(name))


def versions(name: str, tracking_uri: str) -> list[ModelVersion]:
    """All versions that FinSight registered, newest first. ModelNotFound when the name is not registered."""
    with _client(tracking_uri, f"model {name}") as client:
        aliases = client.get_registered_model(name).aliases
        found = [
            registered.version_of(raw, aliases)
            for raw in _pages(client.search_model_versions, filter_string=f"name = '{name}'")
            if registered.is_ours(raw)
        ]
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def champion(name: str, tracking_uri: str) -> str | None:
    """The version that the alias `champion` points at; None when there is no such model or alias."""
    try:
        with _client(tracking_uri, f"model {name}") as client:
            version = client.get_registered_model(name).aliases.get(CHAMPION)
    except ModelNotFound:
        return None
    return None if version is None else str(version)


def load(
    name_or_path: str | Path,
    *,
    tracking_uri: str | None = None,
    alias_or_version: str = CHAMPION,
    cache_dir: Path | None = None,
    feature_digest: str | None = None,
) -> Predictor:
    """Load a bundle directory, or a registered model by alias or version number.

    Without `tracking_uri` the settings name the registry, that of a running instance for example. Registered
    files are downloaded once into `cache_dir` (default: `models` under FINSIGHT_HOME) and verified at every
    load; a damaged copy is downloaded once more. ModelNotFound when there is no such model, BundleRejected
    when its files are not what was registered, NotRunning when MLflow does not answer, ConfigError when no
    setting names a registry.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return predictor.load(path, feature_digest=feature_digest)
    name = str(name_or_path)
    instance = settings.load()
    uri = tracking_uri or instance.require_mlflow_tracking_uri()
    cache = cache_dir or instance.home / "models"
    with _client(uri, f"model {name} ({alias_or_version})") as client:
        found = _find(client, name, alias_or_version)
        directory = _cached(found, cache)
        if directory.exists():
            try:
                return _verified(found, directory, feature_digest)
            except (BundleRejected, OSError):
                shutil.rmtree(directory, ignore_errors=True)
        _download(client, found, directory)
    return _verified(found, directory, feature_digest)


def _find(client: MlflowClient, name: str, alias_or_version: str) -> ModelVersion:
    if alias_or_version.isdecimal():
        return registered.version_of(client.get_model_version(name, alias_or_version), {})
    return registered.version_of(client.get_model_version_by_alias(name, alias_or_version), {})


def _cached(found: ModelVersion, cache: Path) -> Path:
    """Where the version's files are kept. The manifest's hash names the folder: never another model's."""
    folder = f"{found.version}-{found.manifest_sha256[:16]}"
    return cache / re.sub(r"[^\w-]", "_", found.name) / re.sub(r"[^\w-]", "_", folder)


def _download(client: MlflowClient, found: ModelVersion, directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download.", dir=directory.parent) as staging:
        files = Path(staging, "files")
        files.mkdir()
        for name in (bundle.MANIFEST, *bundle.FILES):  # by name: a registry cannot choose where we write
            fetched = client.download_artifacts(found.run_id, f"{ARTIFACT}/{name}", staging)
            shutil.copyfile(fetched, files / name, follow_symlinks=False)
        _move_into_place(files, directory)


def _verified(found: ModelVersion, directory: Path, feature_digest: str | None) -> Predictor:
    if registered.manifest_sha256(directory) != found.manifest_sha256:
        raise BundleRejected(f"{directory}: not the manifest that {found.name} {found.version} was made with")
    return predictor.load(directory, name=found.name, version=found.version, feature_digest=feature_digest)


def _move_into_place(source: Path, directory: Path) -> None:
    try:
        source.rename(directory)
    except OSError:
        if not directory.exists():  # else another process has just downloaded the same version: use its copy
            raise


def _record(
    client: MlflowClient,
    run_id: str,
    bundle_dir: Path,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> None:
    from mlflow.entities import Metric, Param

    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(key, float(value), now_ms, 0) for key, value in metrics.items()],
        params=[Param(key, str(value)) for key, value in params.items()],
    )
    client.log_artifacts(run_id, str(bundle_dir), ARTIFACT)


def _experiment(client: MlflowClient) -> str:
    """Number of our experiment, made when it is missing; another run may make it at the same moment."""
    found = client.get_experiment_by_name(EXPERIMENT)
    while found is None:
        with _existing_is_fine():
            client.create_experiment(EXPERIMENT)
        found = client.get_experiment_by_name(EXPERIMENT)
    return str(found.experiment_id)


def _ensure_model(client: MlflowClient, name: str) -> None:
    with _existing_is_fine():
        client.create_registered_model(name, description="Forecasts of the next bar's log return")


@contextmanager
def _existing_is_fine() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _pages(search: Callable[..., Any], **query: object) -> Iterator[Any]:
    token = ""
    while True:
        page = search(**query, max_results=100, page_token=token or None)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def _client(tracking_uri: str, wanted: str | None = None) -> Iterator[MlflowClient]:
    """An MLflow client whose errors become ours: ModelNotFound for what is `wanted`, else NotRunning."""
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        yield MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    except MlflowException as error:
        # A missing alias is an invalid parameter to MLflow, a missing name or version a missing resource.
        if wanted and error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise ModelNotFound(
                f"{wanted} is not registered; `finsight train` makes one ({error})"
            ) from error
        raise NotRunning(f"MLflow at {_without_password(tracking_uri)} does not answer: {error}") from error


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", uri)
