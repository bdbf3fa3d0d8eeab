"""Databases of both storages. FINSIGHT_TEST_TIMESCALE_DSN names a server that has TimescaleDB."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest

from cluster.storage.migrate import migrate
from cluster.storage.timescale import Use
from tests.conftest import execute

VARIABLE = "FINSIGHT_TEST_TIMESCALE_DSN"
TIMESCALE_DSN = os.environ.get(VARIABLE)
STORAGES = ("native", "timescale") if TIMESCALE_DSN else ("native",)


def require_timescale() -> str:
    """The DSN; the module that asks for it is skipped as a whole where there is none."""
    if not TIMESCALE_DSN:
        pytest.skip(
            f"{VARIABLE} is not set: the DSN of a superuser of a PostgreSQL with TimescaleDB",
            allow_module_level=True,
        )
    return TIMESCALE_DSN


def server(storage: str, native_dsn: str) -> str:
    """DSN of an administrative database of a server for `storage`."""
    return native_dsn if storage == "native" else require_timescale()


@contextmanager
def fresh(dsn: str, use: Use | None) -> Iterator[str]:
    """A database of its own, migrated unless `use` is None."""
    name = f"candles_{uuid.uuid4().hex}"
    execute(dsn, f"CREATE DATABASE {name}")
    try:
        made = urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
        if use is not None:
            migrate(made, use_timescale=use)
        yield made
    finally:
        execute(dsn, f"DROP DATABASE {name} WITH (FORCE)")
