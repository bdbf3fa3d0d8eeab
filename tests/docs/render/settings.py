"""The settings as Markdown, out of `cluster.settings` and the packaged YAML files."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from cluster.settings import Settings, environment_names
from tests.docs.pages import table

_LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to"}


def settings() -> str:
    """One row a setting."""
    schema = Settings.model_json_schema(by_alias=False)["properties"]
    names = environment_names()
    rows = [
        [f"`{names[key]}`", f"`{key}`", _values(schema[key]), _default(key), str(field.description)]
        for key, field in Settings.model_fields.items()
    ]
    return table(["Environment", "YAML key", "Values", "Default", "Meaning"], rows)


def profiles() -> str:
    """What each packaged YAML file sets."""
    rows = [
        [f"`configs/{layer}.yaml`", f"`{key}`", f"`{json.dumps(value)}`"]
        for layer in ("base", "development", "production")
        for key, value in _packaged(layer).items()
    ]
    return table(["File", "YAML key", "Value"], rows)


def _packaged(layer: str) -> dict[str, Any]:
    text = resources.files("configs").joinpath(f"{layer}.yaml").read_text()
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def _values(schema: dict[str, Any]) -> str:
    kinds = [one for one in schema.get("anyOf", [schema]) if one["type"] != "null"]
    [kind] = kinds
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind.get("format") == "password":
        return "secret"
    name = {"object": "mapping", "string": "path" if kind.get("format") == "path" else "text"}
    limits = [f"{word} {kind[key]}" for key, word in _LIMITS.items() if key in kind]
    return " ".join([name.get(kind["type"], kind["type"]), *limits])


def _default(key: str) -> str:
    value = Settings.model_fields[key].default
    if value is None:
        return "unset"
    assert not isinstance(value, SecretStr), "a secret has no default"
    shown = str(value) if isinstance(value, (str, Path)) else json.dumps(value)
    return f"`{shown}`"
