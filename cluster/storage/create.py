"""Make a database on a server where others may be doing the same."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import psycopg2
from psycopg2 import errors, sql

from cluster.errors import StorageError
from cluster.storage.dsn import require_dsn


def ensure_database(dsn: str, name: str) -> str:
    """Make database `name` on the server of `dsn` unless it is there; returns its DSN.

    ConfigError on a wrong DSN; StorageError when the server is out of reach or the user may not make
    databases.
    """
    try:
        connection = psycopg2.connect(require_dsn(dsn))
    except psycopg2.OperationalError as error:
        raise StorageError(f"The PostgreSQL server is out of reach: {str(error).strip()}") from error
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except (errors.DuplicateDatabase, errors.UniqueViolation):
        pass  # another start was faster
    except errors.InsufficientPrivilege as error:
        raise StorageError(
            f"Database {name} is missing, and this user may not make it. Make it by hand: "
            f"CREATE DATABASE {name};"
        ) from error
    finally:
        connection.close()
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
