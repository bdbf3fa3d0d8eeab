"""Servers that the fault tests may break: never those of the session."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.ports import free_port
from cluster.storage.embedded.postgres import EmbeddedPostgres
from cluster.storage.migrate import migrate
from tests.conftest import execute


@pytest.fixture
def rng() -> random.Random:
    """Draws what a test does and when; FINSIGHT_CHAOS_SEED repeats a run that failed."""
    seed = int(os.environ.get("FINSIGHT_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
    print(f"\nto repeat this test: FINSIGHT_CHAOS_SEED={seed}")  # noqa: T201 - shown when the test fails
    return random.Random(seed)


@pytest.fixture(scope="session")
def frail_postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server of the fault tests' own, with a migrated template; a test may stop or starve it."""
    home = Path(tempfile.mkdtemp(prefix="finsight frail "))
    server = EmbeddedPostgres(home, port=free_port())
    try:
        server.start()
        execute(server.dsn("postgres"), "CREATE DATABASE template_finsight")
        migrate(server.dsn("template_finsight"))
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def frail_url(frail_postgres: EmbeddedPostgres) -> Iterator[str]:
    """DSN of a fresh, migrated database of that server, which runs again at the end of the test."""
    name = f"test_{uuid.uuid4().hex}"
    execute(frail_postgres.dsn("postgres"), f"CREATE DATABASE {name} TEMPLATE template_finsight")
    yield frail_postgres.dsn(name)
    frail_postgres.start()
    execute(frail_postgres.dsn("postgres"), f"DROP DATABASE {name} WITH (FORCE)")
