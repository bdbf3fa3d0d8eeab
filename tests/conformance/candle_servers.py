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
STORAGES = ("native", "timescale")


def server(storage: str, native_dsn: str) -> str:
    """DSN of an administrative database of a server for `storage`; skips where there is none."""
    if storage == "native":
        return native_dsn
    if not (dsn := os.environ.get(VARIABLE)):
        pytest.skip(f"{VARIABLE} is not set: the DSN of a superuser of a PostgreSQL with TimescaleDB")
    return dsn


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
