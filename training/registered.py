"""What a registry says about a model and its versions: the facts of the bundle, kept as tags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import BundleRejected
from training import bundle

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.entities.model_registry import RegisteredModel as MlflowModel


TAGS = (
    "feature_names",
    "feature_digest",
    "window",
    "horizon",
    "interval",
    "coverage",
    "symbols",
    "training_range",
    "metrics",
    "manifest_sha256",
)
"""Tags of a version, each a JSON value; others may be added by anybody."""


@dataclass(frozen=True)
class ModelVersion:
    """One registered version, as its tags describe it."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created_at: datetime
    run_id: str
    feature_names: tuple[str, ...]
    feature_digest: str
    window: int
    horizon: int
    interval: str
    coverage: float
    symbols: tuple[str, ...]
    training_range: Mapping[str, Any]
    metrics: Mapping[str, float]
    manifest_sha256: str


@dataclass(frozen=True)
class RegisteredModel:
    """A registered name, its aliases (alias -> version) and its newest version number."""

    name: str
    description: str
    aliases: Mapping[str, str]
    latest: str | None


def tags_of(bundle_dir: Path, metrics: Mapping[str, float]) -> dict[str, str]:
    """Tags of a version with the files of `bundle_dir`; every value is JSON."""
    manifest = json.loads((bundle_dir / bundle.MANIFEST).read_bytes())
    facts = {
        "feature_names": manifest["features"]["names"],
        "feature_digest": manifest["features"]["digest"],
        "window": manifest["window"],
        "horizon": manifest["horizon"],
        "interval": manifest["interval"],
        "coverage": manifest["coverage"],
        "symbols": manifest["symbols"],
        "training_range": manifest["training_range"],
        "metrics": dict(metrics),
        "manifest_sha256": manifest_sha256(bundle_dir),
    }
    return {name: json.dumps(value) for name, value in facts.items()}


def is_ours(raw: MlflowVersion) -> bool:
    """Whether the version was made by `register`; a registry may hold models of others too."""
    return all(name in raw.tags for name in TAGS)


def manifest_sha256(bundle_dir: Path) -> str:
    """Hash of the manifest file, which itself has the hashes of all others."""
    return hashlib.sha256((bundle_dir / bundle.MANIFEST).read_bytes()).hexdigest()


def model_of(raw: MlflowModel) -> RegisteredModel:
    """Our view of an MLflow registered model."""
    return RegisteredModel(
        name=raw.name,
        description=raw.description or "",
        aliases={alias: str(version) for alias, version in raw.aliases.items()},
        latest=max((str(each.version) for each in raw.latest_versions), key=int, default=None),
    )


def version_of(raw: MlflowVersion, aliases: Mapping[str, object]) -> ModelVersion:
    """Our view of an MLflow model version; BundleRejected when its tags are not those of `tags_of`."""
    try:
        facts = {name: json.loads(raw.tags[name]) for name in TAGS}
        return ModelVersion(
            name=raw.name,
            version=str(raw.version),
            aliases=tuple(sorted(alias for alias, at in aliases.items() if str(at) == str(raw.version))),
            created_at=datetime.fromtimestamp(raw.creation_timestamp / 1000, UTC),
            run_id=str(raw.run_id),
            feature_names=tuple(facts["feature_names"]),
            feature_digest=str(facts["feature_digest"]),
            window=int(facts["window"]),
            horizon=int(facts["horizon"]),
            interval=str(facts["interval"]),
            coverage=float(facts["coverage"]),
            symbols=tuple(facts["symbols"]),
            training_range=facts["training_range"],
            metrics=facts["metrics"],
            manifest_sha256=str(facts["manifest_sha256"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise BundleRejected(
            f"{raw.name} version {raw.version} was not registered by FinSight: {error!r}"
        ) from error
