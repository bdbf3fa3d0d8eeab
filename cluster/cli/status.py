"""`finsight status`: the state of every part."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.console import Group

from cluster.cli.arguments import JsonOption
from cluster.cli.terminal import emit, facts, table, talk


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(status)


def status(*, as_json: JsonOption = False) -> None:
    """Show what runs, where, and what is stored; exit status 1 unless everything is up."""
    from cluster.local.status import status as look
    from cluster.settings import load

    found = look(load())
    parts = table(
        ("part", "state", "where", "detail"),
        [(part.name, part.state, part.where, part.detail) for part in found.parts],
    )
    shown = Group(parts, "", facts(found.contents)) if found.contents else parts
    emit({"ok": found.ok, **asdict(found)}, as_json=as_json, text=shown)
    if not found.ok:
        talk("Not everything is up. `finsight up` starts what is missing.")
        raise typer.Exit(1)
