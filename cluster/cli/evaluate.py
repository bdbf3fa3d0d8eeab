"""`finsight evaluate`: compare a registered version with the champion and promote it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from cluster.cli import terminal
from cluster.cli.arguments import JsonOption, WaitOption
from cluster.cli.submitting import options, submit


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(evaluate)


def _version(text: str) -> str:
    if text == "latest" or text.isdecimal():
        return text
    raise typer.BadParameter(f"{text!r} is no version; give a number, or `latest`")


def evaluate(
    name: Annotated[str | None, typer.Option(help="Registered model; default: by setting.")] = None,
    version: Annotated[
        str, typer.Option(parser=_version, metavar="N|latest", help="Which version to evaluate.")
    ] = "latest",
    promote: Annotated[
        Literal["auto", "always", "never"],
        typer.Option(help="Make it the champion: when it is better, in any case, or not at all."),
    ] = "auto",
    *,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Measure a version on bars after its training, beside the champion and the naive baselines, as a job.

    It is better when, on the same rows, neither its RMSE nor the Winkler score of its interval is worse than
    the champion's and one of them is better.
    """
    given = options(name=name, version=version, promote=promote)
    submit("evaluate", given, wait=wait, as_json=as_json, shown=_shown)


def _shown(result: Any) -> Any:
    # The report was talk of the job, and the rule is part of `--help`.
    told = ("name", "version", "champion_before", "promoted", "why")
    return terminal.facts({key: result.get(key) for key in told})
