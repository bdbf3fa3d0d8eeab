"""A server that takes what we say and answers nothing, as after a power cut of the network in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from cluster.errors import StorageError
from cluster.storage.database import Database

pytestmark = pytest.mark.postgres


class Line:
    """A connection line to PostgreSQL that can be frozen."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    def freeze(self) -> None:
        self._flows.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._address)
        self._writers += [writer, server_writer]
        for pair in ((reader, server_writer), (server_reader, writer)):
            self._tasks.append(asyncio.create_task(self._pump(*pair)))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._flows.wait()
            writer.write(data)
        await self._flows.wait()
        writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def line(storage_dsn: str) -> AsyncIterator[tuple[Line, str]]:
    """The line, and the DSN that goes over it."""
    parts = urlsplit(storage_dsn)
    assert parts.hostname
    assert parts.port
    made = Line(parts.hostname, parts.port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield made, storage_dsn.replace(f":{parts.port}/", f":{port}/")
    await made.close()
    server.close()


async def test_a_server_that_freezes_is_given_up_also_within_a_transaction(line: tuple[Line, str]) -> None:
    frozen, dsn = line
    database = await Database.open(dsn, max_size=2, statement_timeout_s=0.2, grace_s=0.2)
    async with asyncio.timeout(60):
        with pytest.raises(StorageError, match=r"does not answer|was lost"):
            await _ask(database, frozen)
    database.pool.terminate()


async def _ask(database: Database, line: Line) -> None:
    async with database.transaction() as connection:
        line.freeze()
        await connection.execute("SELECT 1")
