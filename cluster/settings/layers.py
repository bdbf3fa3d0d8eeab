"""All settings, read once: YAML layers, then the environment, then what the caller passes.

Lowest first: `configs/base.yaml`, `configs/<profile>.yaml`, the running embedded instance
(`FINSIGHT_HOME/run/endpoints.json`), the file named by `FINSIGHT_CONFIG`, the environment, keyword arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cluster.errors import ConfigError
from cluster.settings.fields import environment_names
from cluster.settings.files import from_package, from_path, running_instance
from cluster.settings.model import Settings
from cluster.settings.reload import NEEDS_RESTART
from cluster.settings.showing import HIDDEN, without_secrets

_LONGEST = 200
"""Characters of a wrong value that are told."""


def load(*, instance: bool = True, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read all layers; `instance=False` leaves out what the running embedded instance says.

    Raises `ConfigError` that names key, value and source of everything that is wrong.
    """
    return _load(running_instance if instance else lambda _: {}, environ, overrides)


def reread(environ: Mapping[str, str] | None = None) -> Settings:
    """What the layers say now, for a process that runs; raises `ConfigError` as `load` does.

    What the embedded instance was started with is left out, so that a setting that was taken out of a file
    is back at its default; but for what only a start can change, and the administrator's key that it made.
    """
    kept = NEEDS_RESTART | {"admin_api_key"}
    return _load(
        lambda file: {name: value for name, value in running_instance(file).items() if name in kept},
        environ,
        {},
    )


def _load(
    running_of: Callable[[Path], dict[str, Any]],
    environ: Mapping[str, str] | None,
    overrides: Mapping[str, Any],
) -> Settings:
    environ = os.environ if environ is None else environ
    packaged = from_package("base")
    profile = overrides.get("profile") or environ.get("FINSIGHT_PROFILE") or "development"
    if profile in ("development", "production"):
        packaged |= from_package(profile)
    extra = environ.get("FINSIGHT_CONFIG")
    asked = {**(from_path(Path(extra)) if extra else {}), **_from_environment(environ), **overrides}
    settings = _validated({**packaged, **asked})
    if running := running_of(settings.endpoints_file):
        said = {key: value for key, value in asked.items() if value is not None}
        return _validated({**packaged, **running, **said})
    return settings


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    # An empty variable counts as unset: that is how compose files and charts leave one out.
    return {name: environ[env] for name, env in environment_names().items() if environ.get(env)}


def _validated(values: Mapping[str, Any]) -> Settings:
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        # Not from the error, which quotes every value.
        raise ConfigError("\n".join(_explain(problem) for problem in error.errors())) from None


def _explain(problem: Any) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    by_env = {env: field for field, env in environment_names().items()}
    field = by_env.get(name, name)
    env = environment_names().get(field, name)
    shown = _told(field, problem["input"])
    return f"{field} (environment {env}) = {shown}: {problem['msg']}."


def _told(field: str, given: object) -> str:
    """A single value of a known meaning; of a mapping that is wrong nobody knows what is a key in it."""
    is_plain = field in Settings.model_fields and isinstance(given, str | int | float | bool | None)
    if not is_plain or "key" in field or field == "providers":
        return HIDDEN
    return repr(without_secrets(given))[:_LONGEST]
