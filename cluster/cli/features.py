"""`finsight features`: compute the features of the stored bars."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli import terminal
from cluster.cli.arguments import IntervalOption, JsonOption, WaitOption, symbol
from cluster.cli.submitting import options, run_here, submit
from cluster.market.intervals import Interval


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(features)


def features(
    name: Annotated[
        str | None,
        typer.Argument(metavar="SYMBOL", parser=symbol, help="Default: all active ones, as a job."),
    ] = None,
    interval: IntervalOption = Interval.D1,
    out: Annotated[
        Path | None,
        typer.Option(help="Write times and features of SYMBOL to this Parquet file, not to the database."),
    ] = None,
    *,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Compute the features of the stored bars: of one SYMBOL here and now, of all as a job."""
    if name is None:
        if out is not None:
            raise typer.BadParameter("a file holds the features of one symbol; name it", param_hint="--out")
        submit("features", options(interval=interval), wait=wait, as_json=as_json, shown=terminal.facts)
    else:
        run_here(
            "features", [name, *options(interval=interval, out=out)], as_json=as_json, shown=terminal.facts
        )
