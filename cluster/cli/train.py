"""`finsight train`: train, calibrate and register a model."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import typer

from cluster.cli import terminal
from cluster.cli.arguments import IntervalOption, JsonOption, SymbolsOption, WaitOption, moment
from cluster.cli.submitting import options, submit
from cluster.market.intervals import Interval


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(train)


def train(
    interval: IntervalOption = Interval.D1,
    symbols: SymbolsOption = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            "--as-of",
            parser=moment,
            metavar="TIME",
            help="All symbols that were active then, those that failed since included; default: now.",
        ),
    ] = None,
    size: Annotated[
        Literal["small", "standard"] | None, typer.Option(help="How much is trained; default: by setting.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same model.")] = None,
    name: Annotated[str | None, typer.Option(help="Register under this name; default: by setting.")] = None,
    parallel: Annotated[
        Literal["ray", "none"] | None, typer.Option(help="Train the members side by side, or in turn.")
    ] = None,
    *,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Train the ensemble on the stored bars and register it, as a job. `finsight evaluate` promotes it."""
    given = options(
        interval=interval, symbols=symbols, as_of=as_of, size=size, seed=seed, name=name, parallel=parallel
    )
    submit("train", given, wait=wait, as_json=as_json, shown=terminal.facts)
    if wait and not as_json:
        terminal.talk("`finsight evaluate` compares it with the champion and promotes the better one.")
