"""`finsight models`: the registered models, and which version is served."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Group

from cluster.cli import terminal
from cluster.cli.arguments import JsonOption, group
from cluster.errors import ModelNotFound, NotRunning

CHAMPION = "champion"

_TOLD = ("mae", "rmse", "direction", "coverage", "winkler")
"""Metrics by which versions are set side by side; `--json` has all of them."""

NameArgument = Annotated[
    str | None, typer.Argument(metavar="NAME", help="Registered model; default: the one that is served.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    family = group(app, "models", "List registered models and choose which version is served.")
    family.command("list")(list_models)
    family.command()(show)
    family.command()(promote)


def list_models(*, as_json: JsonOption = False) -> None:
    """List the registered models."""
    from cluster import settings
    from cluster.cli.api import Api

    with Api(settings.load()) as api:
        found = list(api.pages("/models"))
    rows = [
        (each["name"], each["aliases"].get(CHAMPION), each["latest"], each["serving"], each["description"])
        for each in found
    ]
    columns = ("name", CHAMPION, "latest", "serving", "description")
    terminal.emit(found, as_json=as_json, text=terminal.table(columns, rows))
    if not found and not as_json:
        terminal.talk("There are none yet. `finsight train` makes one.")


def show(name: NameArgument = None, *, as_json: JsonOption = False) -> None:
    """Print a model: its champion's signature and metrics, and all its versions."""
    from cluster import settings
    from cluster.cli.api import Api

    loaded = settings.load()
    path = f"/models/{_quoted(name or loaded.model_name)}"
    with Api(loaded) as api:
        model = api.get(path)
        versions = list(api.pages(f"{path}/versions"))
    text = Group(terminal.facts(_summary(model)), "", _versions(versions))
    terminal.emit({**model, "versions": versions}, as_json=as_json, text=text)


def _summary(model: Mapping[str, Any]) -> dict[str, object]:
    version = model["version"] or {}
    signature = dict(version.get("signature", {}))
    names = signature.pop("feature_names", [])
    return {
        "name": model["name"],
        "description": model["description"],
        "aliases": ", ".join(f"{alias} = {number}" for alias, number in model["aliases"].items()) or None,
        "serving": model["serving"],
        "features": f"{len(names)}, as `--json` lists them" if names else None,
        **signature,
        "symbols": version.get("symbols"),
        "training": _period(version.get("training_range", {})),
        "metrics": version.get("metrics", {}),
    }


def _period(training: Mapping[str, Any]) -> str | None:
    if not training:
        return None
    return f"{terminal.when(training['start'])} to {terminal.when(training['end'])}, {training['rows']} rows"


def _versions(versions: list[Any]) -> Any:
    metrics = [name for name in _TOLD if any(name in each["metrics"] for each in versions)]
    columns = ("version", "aliases", "created", *metrics)
    return terminal.table(
        columns,
        [
            (
                each["version"],
                each["aliases"],
                terminal.when(each["created_at"]),
                *(each["metrics"].get(name) for name in metrics),
            )
            for each in versions
        ],
    )


def promote(
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Its number in `models show`.")],
    name: Annotated[
        str | None, typer.Option(help="Registered model; default: the one that is served.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make a version the champion, an older one to go back. `finsight evaluate` does it by measure."""
    from cluster import settings

    loaded = settings.load()
    wanted = name or loaded.model_name
    before = _promote(wanted, str(version), loaded.require_mlflow_tracking_uri())
    said = f"{wanted} version {version} is the champion"
    said += " already." if before == str(version) else f"; before it was {before or 'none'}."
    terminal.emit({"name": wanted, "champion": str(version), "before": before}, as_json=as_json, text=said)
    if not as_json and before != str(version):
        terminal.talk("The API takes it over within seconds, without a failed request.")


def _promote(name: str, version: str, tracking_uri: str) -> str | None:
    """Move the alias; the version that was the champion before."""
    # MLflow would try for minutes before it says a word; and its hints are not for our stdout.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from cluster.settings import hide_password

    try:
        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        before = client.get_registered_model(name).aliases.get(CHAMPION)
        client.get_model_version(name, version)
        client.set_registered_model_alias(name, CHAMPION, version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise ModelNotFound(
                f"There is no version {version} of model {name}. `finsight models` lists the models, "
                "`finsight models show NAME` the versions of one."
            ) from None
        raise NotRunning(f"MLflow at {hide_password(tracking_uri)} does not answer: {error}") from None
    return None if before is None else str(before)


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")
