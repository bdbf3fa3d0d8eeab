"""COPY between the server and this process: whole results, one statement, bound arguments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from cluster.errors import InputError
from cluster.storage.copy_format import Array, Column, encode
from cluster.storage.database import Connection, Database


async def copy_in(connection: Connection, table: str, columns: Mapping[str, Column], rows: int) -> None:
    """Append `rows` rows to `table`; `columns` by the name of the table's column."""
    stream = encode(list(columns.values()), rows)
    await connection.copy_to_table(table, source=stream, columns=list(columns), format="binary")


async def copy_out(connection: Connection, query: str, *arguments: object) -> bytearray:
    """The binary COPY stream of a query; for `copy_format.decode`."""
    stream = bytearray()

    async def keep(part: bytes) -> None:
        stream.extend(part)

    await connection.copy_from_query(query, *arguments, output=keep, format="binary")
    return stream


@asynccontextmanager
async def opened(source: Database | str, connections: int = 1) -> AsyncIterator[Database]:
    """The database itself, or, for a DSN, one that is opened for this call."""
    if isinstance(source, Database):
        yield source
        return
    database = await Database.open(source, min_size=0, max_size=connections)
    try:
        yield database
    finally:
        await database.close()


def moments(since_1970_us: Array) -> list[datetime]:
    """Aware datetimes, as bound arguments must be."""
    return [moment.replace(tzinfo=UTC) for moment in since_1970_us.view("datetime64[us]").tolist()]


def require_aware(*bounds: datetime | None) -> None:
    """Raises `InputError` when a bound of a range has no time zone."""
    for moment in bounds:
        if moment is not None and moment.tzinfo is None:
            raise InputError(f"{moment.isoformat()} has no time zone; give it in UTC, with Z at the end")
