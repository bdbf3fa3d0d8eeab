"""One piece of work on the database, for commands that read it themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from cluster.errors import NotRunning, StorageError

if TYPE_CHECKING:
    from cluster.storage.database import Database

_Answer = TypeVar("_Answer")


def with_database(work: Callable[[Database], Awaitable[_Answer]]) -> _Answer:
    """Do `work` on the database that the settings name.

    Raises `NotRunning` when it cannot be reached, `StorageError` when it has no tables of FinSight.
    """
    import asyncpg

    from cluster import settings

    dsn = settings.load().require_database_url()
    try:
        return asyncio.run(_worked(dsn, work))
    except asyncpg.UndefinedTableError as error:
        raise StorageError(
            f"The database has no FinSight tables ({error}). `finsight up` makes them."
        ) from None


async def _worked(dsn: str, work: Callable[[Database], Awaitable[_Answer]]) -> _Answer:
    from cluster.storage.database import Database

    try:
        database = await Database.open(dsn, max_size=2)
    except StorageError as error:
        raise NotRunning(f"{error} `finsight status` tells what runs, `finsight up` starts it.") from error
    try:
        return await work(database)
    finally:
        await database.close()
