"""Layers that stand in files: packaged and own YAML, and what the running embedded instance says."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from cluster.errors import ConfigError
from cluster.settings.fields import Fields


def running_instance(endpoints: Path) -> dict[str, Any]:
    """What the instance says in its file `endpoints`; nothing when none runs."""
    try:
        found: dict[str, Any] = json.loads(endpoints.read_text())
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
    ):  # broken by hand: `finsight up` writes it anew
        return {}
    except OSError as error:
        raise ConfigError(
            f"{endpoints} cannot be read: {error.strerror}. Choose another folder by FINSIGHT_HOME, or "
            "run this as the user of that one."
        ) from error
    return found


def from_package(name: str) -> dict[str, Any]:
    """The settings of `configs/<name>.yaml`, which comes with FinSight."""
    return _mapping(resources.files("configs").joinpath(f"{name}.yaml").read_text(), f"configs/{name}.yaml")


def from_path(path: Path) -> dict[str, Any]:
    """The settings of the YAML file `path`; `ConfigError` when it cannot be read or is no mapping of them."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"FINSIGHT_CONFIG names {path}, which cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"FINSIGHT_CONFIG names {path}, which is not UTF-8 (byte {error.start}). "
            "Write it as YAML in UTF-8."
        ) from None
    return _mapping(text, str(path))


def _mapping(text: str, source: str) -> dict[str, Any]:
    try:
        parsed = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a day that there is not
        raise ConfigError(f"{source} is not valid YAML: {_where(error)}.") from None
    if not isinstance(parsed, dict):
        raise ConfigError(f"{source} must hold `key: value` lines; it holds a {type(parsed).__name__}.")
    if unknown := sorted(str(name) for name in set(parsed) - set(Fields.model_fields)):
        raise ConfigError(f"{source}: unknown setting {', '.join(unknown)}. See docs/reference/settings.md.")
    return parsed


def _where(error: Exception) -> str:
    """What is wrong with YAML, without the line itself, which may hold a key."""
    if isinstance(error, ScannerError | ParserError):
        why = str(error.problem)
    elif isinstance(error, yaml.MarkedYAMLError):  # these quote the text: an alias, an anchor, a tag
        why = "a value that begins with *, & or ! must stand in quotes"
    else:
        return "it cannot be read as text, lists and mappings"
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {why}" if mark else why
