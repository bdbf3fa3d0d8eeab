"""The settings for other eyes: with their secrets for their owner, without them for everybody else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from cluster.settings.model import Settings

_SECRET_OPTION = ("key", "secret", "token", "password")


def revealed(settings: Settings) -> dict[str, Any]:
    """The settings as JSON types with all secrets, for a file that only their owner can read."""
    # Not by model_dump, which turns a Ctrl-C in its midst into an error of its own.
    return {name: _revealed(value) for name, value in settings}


def _revealed(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as JSON types, passwords and keys hidden."""
    values = settings.model_dump(mode="json")
    for name in ("database_url", "redis_url", "rlc_redis_url", "mlflow_tracking_uri"):
        values[name] = hide_password(values[name])
    values["providers"] = {name: _hidden(options) for name, options in values["providers"].items()}
    return values


def _hidden(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: "***" if any(map(name.lower().count, _SECRET_OPTION)) else value
        for name, value in options.items()
    }


def hide_password(url: str | None) -> str | None:
    """`url` with its password replaced by stars."""
    if not url:
        return url
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))
