"""Which errors are the database's own trouble."""

from __future__ import annotations

import asyncpg
import pytest

from cluster.storage.outage import is_outage


@pytest.mark.parametrize(
    "kind",
    [
        asyncpg.ConnectionDoesNotExistError,  # 08003
        asyncpg.ConnectionFailureError,  # 08006
        asyncpg.ReadOnlySQLTransactionError,  # 25006
        asyncpg.SerializationError,  # 40001
        asyncpg.DeadlockDetectedError,  # 40P01
        asyncpg.DiskFullError,  # 53100
        asyncpg.OutOfMemoryError,  # 53200
        asyncpg.TooManyConnectionsError,  # 53300
        asyncpg.LockNotAvailableError,  # 55P03
        asyncpg.QueryCanceledError,  # 57014
        asyncpg.AdminShutdownError,  # 57P01
        asyncpg.CannotConnectNowError,  # 57P03
        asyncpg.PostgresIOError,  # 58030
    ],
)
def test_a_database_in_trouble_is_an_outage(kind: type[asyncpg.PostgresError]) -> None:
    assert is_outage(kind("told by the server"))


@pytest.mark.parametrize(
    "kind",
    [
        asyncpg.NumericValueOutOfRangeError,  # 22003
        asyncpg.CharacterNotInRepertoireError,  # 22021
        asyncpg.NotNullViolationError,  # 23502
        asyncpg.UniqueViolationError,  # 23505
        asyncpg.CheckViolationError,  # 23514
        asyncpg.NoActiveSQLTransactionError,  # 25P01
        asyncpg.UndefinedTableError,  # 42P01
        asyncpg.ProgramLimitExceededError,  # 54000
        asyncpg.RaiseError,  # P0001
        asyncpg.InternalServerError,  # XX000
    ],
)
def test_what_is_wrong_with_the_data_or_the_statement_is_none(kind: type[asyncpg.PostgresError]) -> None:
    assert not is_outage(kind("told by the server"))
