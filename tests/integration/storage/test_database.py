from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest

from cluster.errors import ConfigError, StorageError
from cluster.storage.database import Connection, Database
from cluster.storage.migrate import migrate

pytestmark = pytest.mark.postgres


async def test_sessions_are_in_utc_and_bounded(database: Database) -> None:
    names = ["TimeZone", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "jit"]
    shown = [await database.pool.fetchval("SELECT current_setting($1)", name) for name in names]
    assert shown == ["UTC", "1min", "30s", "1min", "off"]


async def test_a_transaction_commits_at_its_end(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO universe_versions (version_tag) VALUES ('v1')")
    assert await database.pool.fetchval("SELECT count(*) FROM universe_versions") == 1


async def test_a_transaction_rolls_back_on_an_exception(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            await _add_version_and_fail(connection)
    assert await database.pool.fetchval("SELECT count(*) FROM universe_versions") == 0


async def _add_version_and_fail(connection: Connection) -> None:
    await connection.execute("INSERT INTO universe_versions (version_tag) VALUES ('v1')")
    raise ZeroDivisionError


async def test_an_unreachable_server_is_named_without_the_password() -> None:
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:1/finsight cannot be reached") as caught:
        await Database.open("postgresql://someone:hidden-word@127.0.0.1:1/finsight")
    assert "hidden-word" not in str(caught.value)


async def test_a_wrong_password_is_an_error_of_the_configuration(storage_dsn: str) -> None:
    parts = urlsplit(storage_dsn)
    wrong = f"postgresql://{parts.username}:hidden-word@{parts.hostname}:{parts.port}{parts.path}"
    with pytest.raises(ConfigError, match="Check DATABASE_URL") as caught:
        await Database.open(wrong)
    assert "hidden-word" not in str(caught.value)


async def test_an_unknown_database_is_an_error_of_the_configuration(storage_dsn: str) -> None:
    with pytest.raises(ConfigError, match='database "storage_tests_not" does not exist'):
        await Database.open(f"{storage_dsn}_not")


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://someone:hid/den-word@127.0.0.1:1/x",  # the slash ends the host
        "postgresql://someone:hidden-word@127.0.0.1:99999/x",
        "postgresql://someone:hidden-word@127.0.0.1:den-word/x",
        "postgresql://someone:hidden%zzden-word@127.0.0.1:1/x",
        "postgres//someone:hidden-word@127.0.0.1:1/x",
        "host=127.0.0.1 password=hidden-word",
        "",
    ],
)
async def test_an_address_with_a_slip_is_not_repeated(dsn: str) -> None:
    for connect in (Database.open, migrate_in_a_thread):
        with pytest.raises(ConfigError, match="Check DATABASE_URL") as caught:
            await connect(dsn)
        assert "den-word" not in str(caught.value)


async def migrate_in_a_thread(dsn: str) -> list[str]:
    return await asyncio.to_thread(migrate, dsn)


async def test_a_dsn_that_is_none_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="Check DATABASE_URL"):
        await Database.open("sqlite:///finsight.db")


async def test_a_statement_that_takes_too_long_is_given_up(storage_dsn: str) -> None:
    database = await Database.open(storage_dsn, statement_timeout_s=0.05)
    try:
        with pytest.raises(StorageError, match="statement timeout"):
            async with database.transaction() as connection:
                await connection.execute("SELECT pg_sleep(30)")
    finally:
        await database.close()


async def test_a_lock_that_does_not_come_is_given_up(storage_dsn: str, database: Database) -> None:
    impatient = await Database.open(storage_dsn, lock_timeout_s=0.05)
    try:
        async with database.transaction() as holder:
            await holder.execute("LOCK TABLE universe_versions")
            with pytest.raises(StorageError, match="lock timeout"):
                async with impatient.transaction() as connection:
                    await connection.execute("LOCK TABLE universe_versions")
    finally:
        await impatient.close()


async def test_a_connection_that_is_cut_is_a_storage_error_and_the_pool_goes_on(database: Database) -> None:
    with pytest.raises(StorageError, match="was lost"):
        async with database.transaction() as connection:
            await _cut(database, connection)
    assert await database.pool.fetchval("SELECT 1") == 1


async def _cut(database: Database, connection: Connection) -> None:
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    assert await database.pool.fetchval("SELECT pg_terminate_backend($1, 10000)", pid)
    await connection.execute("SELECT 1")


async def test_an_argument_of_a_wrong_type_is_not_blamed_on_the_server(database: Database) -> None:
    with pytest.raises(asyncpg.DataError):
        async with database.connection() as connection:
            await connection.fetchval("SELECT $1::int", "seven")
