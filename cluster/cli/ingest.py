"""`finsight ingest`: load the symbols and the history of a provider."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from cluster.cli import terminal
from cluster.cli.arguments import IntervalOption, JsonOption, SymbolsOption, WaitOption, moment
from cluster.cli.submitting import options, submit
from cluster.market.intervals import Interval


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(ingest)


def ingest(
    provider: Annotated[str | None, typer.Option(help="One of the configured providers.")] = None,
    interval: IntervalOption = Interval.D1,
    symbols: SymbolsOption = None,
    start: Annotated[
        datetime | None,
        typer.Option("--from", parser=moment, metavar="TIME", help="UTC; default: all that there is."),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option("--to", parser=moment, metavar="TIME", help="UTC, not included; default: now."),
    ] = None,
    timeout_s: Annotated[float | None, typer.Option(min=1, help="Longest wait for the bars.")] = None,
    *,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Add a provider's symbols to the universe and fetch the bars that are missing, as a job."""
    given = options(
        provider=provider, interval=interval, symbols=symbols, start=start, end=end, timeout_s=timeout_s
    )
    submit("ingest", given, wait=wait, as_json=as_json, shown=terminal.facts)
