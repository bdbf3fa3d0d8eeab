"""Forward migrations: numbered plain SQL files, each applied once and never changed afterwards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors

from cluster import logs
from cluster.errors import StorageError
from cluster.storage import timescale
from cluster.storage.dsn import address, require_dsn

log = logs.get(__name__)

SCHEMA = Path(__file__).parent / "schema"

_CONNECT_TIMEOUT_S = 10
_LOCK = 7_221_990_146_522_001  # one number for all FinSight programs: only one of them migrates at a time
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text PRIMARY KEY,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True)
class Migration:
    """One SQL file."""

    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of the file's text."""
        return sha256(self.sql.encode()).hexdigest()


def migrate(
    dsn: str, folder: Path = SCHEMA, *, lock_timeout_s: float = 120.0, use_timescale: timescale.Use = "auto"
) -> list[str]:
    """Bring the database to the newest schema; returns the names applied, in order.

    The candle tables become hypertables as `timescale.adopt` says.

    Any number of processes may call it at once: one works, the others wait and find nothing to do. Each file
    is one transaction, so one that fails leaves nothing half-done. Raises `StorageError` when a file fails,
    when an applied file has been changed since, when the database is of a newer FinSight, and when others
    hold it for longer than `lock_timeout_s`; `ConfigError` on a wrong DSN.
    """
    migrations = available(folder)
    connection = _connect(dsn, lock_timeout_s)
    try:
        connection.autocommit = True
        cursor = connection.cursor()
        _lock(cursor)
        cursor.execute(_LEDGER)
        applied = _apply_missing(cursor, migrations)
        if folder == SCHEMA:
            log.info("candle_storage", timescaledb=timescale.adopt(cursor, use_timescale))
        return applied
    finally:
        connection.close()


def available(folder: Path = SCHEMA) -> list[Migration]:
    """The migrations of `folder` in the order of their numbers."""
    files = sorted(folder.glob("*.sql"))
    numbers = [match[1] for file in files if (match := _NAME.fullmatch(file.name))]
    if len(numbers) != len(files) or len(set(numbers)) != len(files):
        raise StorageError(f"Migrations in {folder} must be named NNNN_name.sql, each number once.")
    return [Migration(file.stem, file.read_text()) for file in files]


def _connect(dsn: str, lock_timeout_s: float) -> Any:
    try:
        return psycopg2.connect(
            require_dsn(dsn),
            connect_timeout=_CONNECT_TIMEOUT_S,
            application_name="finsight-migrate",
            options=f"-c timezone=UTC -c lock_timeout={round(lock_timeout_s * 1_000)}ms",
        )
    except psycopg2.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise StorageError(f"PostgreSQL at {address(dsn)} cannot be reached: {reason}") from error


def _lock(cursor: Any) -> None:
    try:
        cursor.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))  # ends with the connection
    except psycopg2.errors.LockNotAvailable as error:
        raise StorageError("Another program has been migrating the database for long. Try again.") from error


def _apply_missing(cursor: Any, migrations: Sequence[Migration]) -> list[str]:
    cursor.execute("SELECT name, sha256 FROM schema_migrations")
    applied = dict(cursor.fetchall())
    _verify(applied, migrations)
    missing = [migration for migration in migrations if migration.name not in applied]
    for migration in missing:
        _apply(cursor, migration)
    return [migration.name for migration in missing]


def _verify(applied: dict[str, str], migrations: Sequence[Migration]) -> None:
    known = {migration.name: migration.digest for migration in migrations}
    for name, digest in sorted(applied.items()):
        if name not in known:
            raise StorageError(
                f"The database has migration {name}, which this FinSight does not know. Upgrade it."
            )
        if known[name] != digest:
            raise StorageError(
                f"Migration {name} was changed after it was applied: the database has sha256 {digest[:12]}, "
                f"the file {known[name][:12]}. Restore the file and put the change into a new migration."
            )


def _apply(cursor: Any, migration: Migration) -> None:
    try:
        cursor.execute("BEGIN")
        cursor.execute(migration.sql)
        cursor.execute(
            "INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)", (migration.name, migration.digest)
        )
        cursor.execute("COMMIT")
    except psycopg2.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise StorageError(f"Migration {migration.name} failed and was rolled back: {reason}") from error
