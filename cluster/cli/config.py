"""`finsight config`: what is set, and where each value comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cluster.cli import calendar_changes, terminal
from cluster.cli.arguments import JsonOption, group
from cluster.errors import ConfigError

if TYPE_CHECKING:
    from cluster.settings import Settings


@dataclass(frozen=True)
class Setting:
    """One setting as it holds now."""

    name: str
    value: Any
    environment: str
    """Name of the environment variable that changes it."""
    source: str


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    family = group(app, "config", "Show and check the settings.", default="show")
    family.command()(show)
    family.command()(validate)
    family.command()(reload)
    calendar_changes.register(family)


def show(*, as_json: JsonOption = False) -> None:
    """Print every setting with its source; keys and passwords are hidden."""
    from cluster import settings

    found = described(settings.load(), os.environ)
    rows = [(each.name, each.value, each.source, each.environment) for each in found]
    terminal.emit(
        {each.name: {"value": each.value, "source": each.source} for each in found},
        as_json=as_json,
        text=terminal.table(("setting", "value", "from", "environment"), rows),
    )


def validate(*, as_json: JsonOption = False) -> None:
    """Check the settings, their providers and the model configuration without starting anything."""
    problems = wrong(os.environ)
    warnings = [] if problems else left_out(os.environ)
    text = (
        "\n".join(problems) if problems else "The configuration is valid. `finsight config show` prints it."
    )
    terminal.emit(
        {"valid": not problems, "problems": problems, "warnings": warnings}, as_json=as_json, text=text
    )
    for warning in [] if as_json else warnings:
        terminal.talk(warning)
    if problems:
        raise typer.Exit(1)


def reload(*, as_json: JsonOption = False) -> None:
    """Have the running system read its configuration files and keys anew; no work is dropped.

    What is wrong changes nothing. What stands in the environment holds from a start to its end.
    """
    from cluster import settings
    from cluster.cli.api import Api

    with Api(settings.load()) as api:
        answer = api.post("/ops/reload", {}, admin=True)
    terminal.emit(answer, as_json=as_json, text=terminal.facts(answer))
    if answer["restart_needed"] and not as_json:
        terminal.talk("What needs a restart holds after `finsight down` and `finsight up`.")
    if answer["failed"]:
        raise typer.Exit(1)


def wrong(environ: Mapping[str, str]) -> list[str]:
    """What is wrong with the configuration, in sentences; empty when nothing is."""
    from cluster import settings
    from cluster.providers import check

    try:
        loaded = settings.load(environ=environ)
    except ConfigError as error:
        return str(error).splitlines()
    return [*check.wrong(loaded), *_wrong_model(loaded)]


def left_out(environ: Mapping[str, str]) -> list[str]:
    """What of a valid configuration does not run, in sentences."""
    from cluster import settings
    from cluster.providers import check

    return check.not_run(settings.load(environ=environ))


def _wrong_model(loaded: Settings) -> list[str]:
    from importlib import resources

    folder = resources.files("configs").joinpath("models")
    sizes = sorted(Path(each.name).stem for each in folder.iterdir() if each.name.endswith(".yaml"))
    problems = []
    if loaded.model_size not in sizes:
        problems.append(
            f"model_size (environment FINSIGHT_MODEL_SIZE) = {loaded.model_size!r}: "
            f"there are {', '.join(sizes)}."
        )
    if loaded.model_dir is not None and not loaded.model_dir.is_dir():
        problems.append(f"model_dir (environment MODEL_DIR) = {str(loaded.model_dir)!r}: is no folder.")
    return problems


def described(loaded: Settings, environ: Mapping[str, str]) -> list[Setting]:
    """Every setting with its value, secrets hidden, and the layer that gave it."""
    from cluster import settings

    values = settings.shown(loaded)
    running = settings.running_instance(loaded.endpoints_file)
    return [
        Setting(name, values[name], env, _source(name, env, loaded, running, environ))
        for name, env in settings.environment_names().items()
    ]


def _source(
    name: str, env: str, loaded: Settings, running: Mapping[str, Any], environ: Mapping[str, str]
) -> str:
    from pydantic import SecretStr

    value = getattr(loaded, name)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        value = str(value)
    if environ.get(env):
        return "environment"
    if running.get(name) is not None and running[name] == value:
        return "running instance"
    default = type(loaded).model_fields[name].default
    return "default" if value in (default, _absolute(default)) else "configuration file"


def _absolute(default: object) -> object:
    return default.resolve() if isinstance(default, Path) else default
