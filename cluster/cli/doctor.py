"""`finsight doctor`: does this machine have what FinSight needs, and do its servers answer?"""

from __future__ import annotations

import typer

from cluster.cli import terminal
from cluster.cli.arguments import JsonOption
from cluster.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(doctor)


def doctor(*, as_json: JsonOption = False) -> None:
    """Check Python, packages, memory, disk, ports and servers. Exit status 1 when something is wrong."""
    from cluster import settings
    from cluster.cli import machine, reachability
    from cluster.cli.finding import Finding
    from cluster.providers import check

    found = machine.installation()
    try:
        loaded = settings.load()
    except ConfigError as error:
        found.append(
            Finding("settings", "failed", str(error), "`finsight config validate` checks them again")
        )
    else:
        found += [*machine.resources(loaded), *machine.ports(loaded), *reachability.servers(loaded)]
        found += [
            Finding("provider", "off", sentence, "see docs/how-to/use-real-providers.md")
            for sentence in check.not_run(loaded)
        ]
    rows = [(each.state, each.name, each.detail) for each in found]
    terminal.emit(found, as_json=as_json, text=terminal.table(("state", "what", "found"), rows))
    for each in found:
        if each.remedy and not as_json:
            terminal.talk(f"{each.name}: {each.remedy}.")
    if any(each.state == "failed" for each in found):
        raise typer.Exit(1)
