"""Real servers for the tests: each starts once for the session, each test gets a database of its own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg2
import pytest
import structlog

from cluster.local import interpreter
from cluster.storage.embedded.postgres import EmbeddedPostgres
from cluster.storage.embedded.valkey import EmbeddedValkey

# Ray runs its workers at nice 15, where a busy machine leaves them a few percent of a core: seconds of work
# become minutes, and timeouts strike. Read by every raylet that a test starts, in this process or below it.
os.environ.setdefault("RAY_worker_niceness", "0")

# The networks of the tests are tiny: two threads take three times the CPU of one for their sums, and ten
# times as long on a busy machine. Read when torch is loaded, in this process and those below it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# How long an example takes says something about the machine and nothing about the code.
hypothesis.settings.register_profile("finsight", deadline=None)
hypothesis.settings.load_profile("finsight")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--part`: what `make test` runs side by side, and what after it, one test at a time."""
    parser.addoption(
        "--part",
        choices=["parallel", "serial"],
        help="only tests that run side by side, or only those with the markers ray and system",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the part that was asked for: a Ray wants the machine for itself."""
    part = config.getoption("--part")
    if part is None:
        return
    of_part: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        alone = any(item.iter_markers("ray")) or any(item.iter_markers("system"))
        of_part[alone == (part == "serial")].append(item)
    items[:] = of_part[True]
    config.hook.pytest_deselected(items=of_part[False])


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """What a test sets up for logs in this process ends with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def servers_home() -> Iterator[Path]:
    """A home folder with a space in its name."""
    home = Path(tempfile.mkdtemp(prefix="finsight tests "))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(servers_home: Path) -> Iterator[EmbeddedPostgres]:
    """The session's PostgreSQL server."""
    server = EmbeddedPostgres(servers_home)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_dsn(postgres: EmbeddedPostgres) -> str:
    """DSN of an administrative database of the session's server."""
    return postgres.dsn("postgres")


def execute(dsn: str, statement: str) -> None:
    """Run one statement outside a transaction."""
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        connection.cursor().execute(statement)
    finally:
        connection.close()


@pytest.fixture(scope="session")
def template_database(postgres: EmbeddedPostgres, postgres_dsn: str) -> str:
    """Name of a migrated database that the others are copied from."""
    from cluster.storage.migrate import migrate

    execute(postgres_dsn, "CREATE DATABASE template_finsight")
    migrate(postgres.dsn("template_finsight"))
    return "template_finsight"


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, postgres_dsn: str, template_database: str) -> Iterator[str]:
    """DSN of a fresh, migrated database that lives as long as the test."""
    name = f"test_{uuid.uuid4().hex}"
    execute(postgres_dsn, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY FILE_COPY")
    yield postgres.dsn(name)
    execute(postgres_dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def valkey_url(servers_home: Path) -> Iterator[str]:
    """URL of the session's Valkey server."""
    server = EmbeddedValkey(servers_home)
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray cluster of this machine, one for the session; tests keep apart by namespaces of their own."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", interpreter.plain(tmp_path_factory.mktemp("python")))
        start_ray(tries=3)
    yield
    ray.shutdown()


def start_ray(tries: int) -> None:
    """Ray gives its node 30 s to start and no way to change that: a busy machine may need another try."""
    import ray

    try:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    except Exception as error:  # it has no type of its own
        if tries == 1 or "timed out during startup" not in str(error):
            raise
        start_ray(tries - 1)
