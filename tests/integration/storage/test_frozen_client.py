"""Clients that freeze in the middle of a transaction, and hold what others wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from cluster.errors import StorageError
from cluster.storage.database import Connection, Database

pytestmark = pytest.mark.postgres

Act = Callable[[Connection, asyncio.Event], Awaitable[object]]
_WAITS = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = ANY($1)"
_ADD = "INSERT INTO universe_versions (version_tag) VALUES ('wanted')"


async def copies(connection: Connection, thawed: asyncio.Event) -> object:
    """Falls silent in the middle of its rows."""

    async def rows() -> AsyncIterator[bytes]:
        yield b"copied\n"
        await thawed.wait()

    return await connection.copy_to_table("universe_versions", source=rows(), columns=["version_tag"])


async def reads(connection: Connection, thawed: asyncio.Event) -> object:
    """Takes no more of an answer that is longer than the network holds."""

    async def wait(_: bytes) -> None:
        await thawed.wait()

    query = "SELECT repeat('x', 1000000) FROM generate_series(1, 50)"
    return await connection.copy_from_query(query, output=wait)


async def computes(connection: Connection, _: asyncio.Event) -> object:
    """Is at work, and in nobody's debt."""
    return await connection.execute("SELECT pg_sleep(60)")


@asynccontextmanager
async def held(database: Database, act: Act, waits: list[str]) -> AsyncIterator[asyncio.Task[None]]:
    """Somebody holds the row `wanted` and then does `act`, until it waits for one of `waits`."""
    thawed = asyncio.Event()

    async def hold() -> None:
        async with database.transaction() as connection:
            await connection.execute(_ADD)
            await act(connection, thawed)

    holder = asyncio.create_task(hold())
    while not await database.pool.fetchval(_WAITS, waits):
        assert not holder.done()
        await asyncio.sleep(0.01)
    yield holder
    thawed.set()
    holder.cancel()
    with suppress(StorageError, asyncio.CancelledError):
        await holder


async def has_it(dsn: str, *, frozen_after_s: float) -> bool:
    """Whether a process that is in a hurry gets the row, within a few tries."""
    other = await Database.open(dsn, max_size=1, lock_timeout_s=0.1, frozen_after_s=frozen_after_s)
    try:
        for _ in range(5):
            with suppress(StorageError):
                async with other.transaction() as connection:
                    await connection.execute(_ADD)
                return True
        return False
    finally:
        await other.close()


@pytest.mark.parametrize(("act", "waits"), [(copies, ["ClientRead"]), (reads, ["ClientWrite"])])
async def test_a_client_that_freezes_inside_of_a_statement_is_ended_by_who_waits_in_vain(
    database: Database, storage_dsn: str, act: Act, waits: list[str]
) -> None:
    async with held(database, act, waits):
        assert await has_it(storage_dsn, frozen_after_s=0.2)


@pytest.mark.parametrize(
    ("act", "waits", "after_s"), [(copies, ["ClientRead"], 60.0), (computes, ["PgSleep"], 0.1)]
)
async def test_a_client_that_is_only_slow_is_left_alone(
    database: Database, storage_dsn: str, act: Act, waits: list[str], after_s: float
) -> None:
    async with held(database, act, waits) as holder:
        assert not await has_it(storage_dsn, frozen_after_s=after_s)
        assert not holder.done()


async def test_the_server_gives_up_a_client_whose_network_is_gone(database: Database) -> None:
    names = ["tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout"]
    shown = [await database.pool.fetchval("SELECT current_setting($1)", name) for name in names]
    assert shown == ["30", "10", "3", "70000"]
