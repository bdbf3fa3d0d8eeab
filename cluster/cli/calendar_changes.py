"""`finsight config calendars`: sessions that differ from the calendars of the library."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli import terminal
from cluster.cli.arguments import JsonOption, group
from cluster.cli.sql import with_database
from cluster.errors import InputError

FileArgument = Annotated[
    Path,
    typer.Argument(exists=True, dir_okay=False, help="calendar,session,open,close,reason; no times: closed."),
]


def register(family: typer.Typer) -> None:
    """Add the commands to `family`."""
    own = group(family, "calendars", "Sessions that differ from the exchange calendars.")
    own.command("list")(list_all)
    own.command("import")(import_file)
    own.command("remove")(remove)


def list_all(*, as_json: JsonOption = False) -> None:
    """List the sessions that were changed."""
    from cluster.storage import calendar_overrides

    found = with_database(calendar_overrides.listed)
    columns = ("calendar", "session", "open", "close", "reason")
    rows = [
        (each.calendar, each.session, each.open or "closed", each.close or "", each.reason) for each in found
    ]
    terminal.emit([asdict(each) for each in found], as_json=as_json, text=terminal.table(columns, rows))


def import_file(file: FileArgument) -> None:
    """Change the sessions in FILE: other hours, or closed; within a minute every process goes by them.

    Gaps of sessions that are closed now vanish, and jobs for them are dropped.
    """
    from cluster.market import calendars
    from cluster.storage import audit, calendar_overrides

    changes = calendars.read_overrides(file)
    if unknown := sorted({each.calendar for each in changes} - calendars.names()):
        raise InputError(f"{file}: calendar {unknown[0]!r} is not known; give a name like XNYS or XLON")
    changed = with_database(lambda database: calendar_overrides.put(database, changes, by=audit.os_user()))
    terminal.talk(f"{changed} of {len(changes)} sessions changed.")


def remove(file: FileArgument) -> None:
    """Take the sessions in FILE from the exchange calendars again."""
    from cluster.market import calendars
    from cluster.storage import audit, calendar_overrides

    changes = calendars.read_overrides(file)
    dropped = with_database(lambda database: calendar_overrides.drop(database, changes, by=audit.os_user()))
    terminal.talk(f"{dropped} of {len(changes)} sessions are those of the exchange calendar again.")
