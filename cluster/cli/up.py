"""`finsight up` and `finsight down`: the whole of FinSight on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from cluster.cli.arguments import JsonOption
from cluster.cli.predict import told
from cluster.cli.terminal import emit, facts, talk

PortOffset = Annotated[
    int | None,
    typer.Option(help="Added to every port, so that a second instance stays out of the way.", min=0),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("up")(up)
    app.command("down")(down)


def up(*, port_offset: PortOffset = None, as_json: JsonOption = False) -> None:
    """Start everything that is not running, from the database to a served prediction, and print the URLs.

    The first start loads history and trains a model; later ones find both. Interrupted, it goes on where it
    was when it is called again.
    """
    from cluster.cli.steps import steps
    from cluster.local.up import up as start
    from cluster.settings import load

    given: dict[str, Any] = {} if port_offset is None else {"port_offset": port_offset}
    settings = load(instance=False, **given)
    try:
        with steps() as console:
            ready = start(settings, console)
    except KeyboardInterrupt:
        talk("\nInterrupted. `finsight up` goes on from here, `finsight down` stops what was started.")
        raise
    emit(asdict(ready), as_json=as_json, text=_text(ready.urls, ready.prediction))
    talk(f"Writing over HTTP needs the key in {ready.admin_key_file}.")
    talk(f"The Ray dashboard asks for the token in {ready.ray_token_file}.")
    talk("`finsight status` shows every part, `finsight down` stops all of it.")


def down(*, as_json: JsonOption = False) -> None:
    """Stop everything that runs of this FINSIGHT_HOME; data and models stay."""
    from cluster.cli.steps import steps
    from cluster.local.down import down as stop
    from cluster.settings import load

    settings = load()
    with steps() as console:
        seconds = stop(settings, console)
    text = f"FinSight of {settings.home} is stopped." if seconds else "Nothing was running."
    emit({"home": str(settings.home), "seconds": seconds}, as_json=as_json, text=text)


def _text(urls: Mapping[str, str], prediction: Mapping[str, Any] | None) -> RenderableType:
    names = {"api": "API", "docs": "API docs", "dashboard": "Ray dashboard", "mlflow": "MLflow"}
    addresses = facts({names[name]: url for name, url in urls.items()})
    return addresses if prediction is None else Group(facts(told(prediction)), "", addresses)
