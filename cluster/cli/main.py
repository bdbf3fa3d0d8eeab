"""The program `finsight`: its commands, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cluster.cli import (
    backfill,
    config,
    doctor,
    evaluate,
    features,
    gaps,
    ingest,
    jobs,
    models,
    predict,
    status,
    symbols,
    train,
    up,
)
from cluster.cli.terminal import talk
from cluster.errors import FinSightError

app = typer.Typer(
    name="finsight",
    help="Market data, features, forecasts and live streams on one Ray cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for family in (up, status, doctor, config, symbols, ingest, backfill, gaps, features, train, evaluate):
    family.register(app)
for family in (predict, models, jobs):
    family.register(app)


def _version(wanted: bool) -> None:  # noqa: FBT001 (typer calls it so)
    if wanted:
        from importlib.metadata import version

        print(f"finsight {version('finsight')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,  # noqa: ARG001
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""
    from cluster import logs

    logs.configure(os.environ.get("LOG_LEVEL") or "warning")


def main() -> None:
    """Run the command line; exit status 0, 1 (failed), 2 (wrong usage) or 130 (interrupted)."""
    try:
        app()  # typer turns wrong usage, Ctrl-C and a closed pipe into their exit status
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        known = isinstance(error, FinSightError)
        talk(f"finsight: {error}" if known else f"finsight: unexpected {type(error).__name__}: {error}")
        sys.exit(1)
