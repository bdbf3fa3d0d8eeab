from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from cluster.errors import StorageError
from cluster.storage.embedded.postgres import EmbeddedPostgres
from cluster.storage.migrate import _LOCK, available, migrate
from tests.conftest import execute

pytestmark = pytest.mark.postgres


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres, postgres_dsn: str) -> Iterator[str]:
    name = f"empty_{uuid.uuid4().hex}"
    execute(postgres_dsn, f"CREATE DATABASE {name}")
    yield postgres.dsn(name)
    execute(postgres_dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (n integer);")
    (tmp_path / "0002_second.sql").write_text(
        "CREATE TABLE second (n integer); INSERT INTO second VALUES (7);"
    )
    return tmp_path


def ask(dsn: str, query: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(dsn)
    try:
        cursor = connection.cursor()
        cursor.execute(query)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
    finally:
        connection.close()


def test_all_migrations_are_applied_in_order_and_only_once(empty_database: str) -> None:
    names = [migration.name for migration in available()]
    assert names[:2] == ["0001_universe", "0002_candles"]
    assert migrate(empty_database) == names
    assert migrate(empty_database) == []


def test_several_at_once_apply_each_migration_once(empty_database: str, folder: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(lambda _: migrate(empty_database, folder), range(6)))
    assert sorted(applied) == [[]] * 5 + [["0001_first", "0002_second"]]
    assert ask(empty_database, "SELECT n FROM second") == [(7,)]


def test_a_migration_of_another_program_is_not_waited_for_without_end(empty_database: str) -> None:
    other = psycopg2.connect(empty_database)
    try:
        other.cursor().execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        with pytest.raises(StorageError, match="Another program has been migrating"):
            migrate(empty_database, lock_timeout_s=0.05)
    finally:
        other.close()


def test_a_failed_migration_leaves_nothing_and_the_ones_before_it_stay(
    empty_database: str, folder: Path
) -> None:
    broken = folder / "0003_broken.sql"
    broken.write_text("CREATE TABLE third (n integer); SELECT 1 / 0;")
    with pytest.raises(StorageError, match="0003_broken failed and was rolled back: division by zero"):
        migrate(empty_database, folder)
    assert ask(empty_database, "SELECT to_regclass('second') IS NULL, to_regclass('third') IS NULL") == [
        (False, True)
    ]
    broken.write_text("CREATE TABLE third (n integer);")
    assert migrate(empty_database, folder) == ["0003_broken"]


def test_a_file_changed_after_it_was_applied_is_refused(empty_database: str, folder: Path) -> None:
    migrate(empty_database, folder)
    (folder / "0001_first.sql").write_text("CREATE TABLE first (n bigint);")
    with pytest.raises(StorageError, match="0001_first was changed after it was applied"):
        migrate(empty_database, folder)


def test_a_database_of_a_newer_program_is_refused(empty_database: str, folder: Path) -> None:
    migrate(empty_database, folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(StorageError, match="0002_second, which this FinSight does not know"):
        migrate(empty_database, folder)


@pytest.mark.parametrize("name", ["0002_again.sql", "3_short.sql", "notes.sql"])
def test_files_without_a_number_of_their_own_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("SELECT 1;")
    with pytest.raises(StorageError, match=r"NNNN_name\.sql, each number once"):
        available(folder)


def test_an_unreachable_server_is_named_without_the_password() -> None:
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1/finsight cannot be reached") as caught:
        migrate("postgresql://someone:hidden-word@127.0.0.1:1/finsight")
    assert "hidden-word" not in str(caught.value)
