"""The commands of `finsight` in this process, with the environment that a test gives them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

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
    symbols,
    train,
)
from cluster.errors import FinSightError
from cluster.local.instance import ray_environment
from cluster.settings import environment_names

_FAMILIES = (
    backfill, config, doctor, evaluate, features, gaps, ingest, jobs, models, predict, symbols, train
)  # fmt: skip

app = typer.Typer(pretty_exceptions_enable=False)
for _family in _FAMILIES:
    _family.register(app)


@dataclass(frozen=True)
class Said:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str
    """Talk, usage errors, or the text of the error that the command ended with."""

    @property
    def json(self) -> Any:
        """What it wrote on stdout, which must be one JSON document."""
        return json.loads(self.out)


def finsight(*arguments: str, **environment: str) -> Said:
    """Run `finsight` with `arguments`; only the settings in `environment` are set. Bugs are raised."""
    # What a command itself sets, for the library that it loads, is undone too.
    names = (*environment_names().values(), *ray_environment(Path()))
    clean: dict[str, str | None] = dict.fromkeys(names)
    result = CliRunner(env={**clean, **environment, "NO_COLOR": "1"}).invoke(app, list(arguments))
    if isinstance(result.exception, FinSightError):
        return Said(1, result.stdout, f"{result.stderr}{result.exception}")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.stdout, result.stderr)
