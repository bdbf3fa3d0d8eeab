"""Tells waiting workers that jobs have been queued, so that they need not wait for their next look.

Nothing depends on it: a bell that nobody hears costs a worker the pause until it looks by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakKeyDictionary

import asyncpg

from cluster import logs
from cluster.errors import StorageError
from cluster.storage.database import CONNECT_TIMEOUT_S, Database

log = logs.get(__name__)

QUIET_S = 0.1
"""Shortest pause between two rings of a process. PostgreSQL takes a lock of the whole database for each."""

_CHANNEL = "finsight_backfill"
_RING = f"SELECT pg_notify('{_CHANNEL}', '')"
_RECONNECT_S = 2.0
_LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

_rung_at_s: WeakKeyDictionary[Database, float] = WeakKeyDictionary()


async def ring(database: Database) -> None:
    """Wake the workers, unless that was just done. In no transaction, so that no commit waits for it."""
    now_s = time.monotonic()
    if now_s - _rung_at_s.get(database, float("-inf")) < QUIET_S:
        return
    _rung_at_s[database] = now_s
    try:
        async with database.connection() as connection:
            await connection.execute(_RING)
    except (StorageError, asyncpg.PostgresError) as error:
        log.warning("bell_failed", reason=str(error))


class Listener:
    """Calls `wake` at every ring, over a connection of its own that is made anew when it is lost."""

    def __init__(
        self, dsn: str, wake: Callable[[], None], *, check_s: float = 15.0, reconnect_s: float = _RECONNECT_S
    ) -> None:
        self._dsn, self._wake = dsn, wake
        self._check_s, self._reconnect_s = check_s, reconnect_s

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        while True:
            try:
                await self._listen()
            except _LOST as error:
                log.warning("listener_lost", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(self._reconnect_s)

    async def _listen(self) -> None:
        """Until the connection is lost. A half-open one is found by asking something now and then."""
        connection = await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_TIMEOUT_S,
            server_settings={"application_name": "finsight-listener"},
        )
        lost = asyncio.Event()
        connection.add_termination_listener(lambda *_: lost.set())
        try:
            await connection.add_listener(_CHANNEL, lambda *_: self._wake())
            self._wake()  # for what was queued while nobody listened
            while not lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._check_s):
                        await lost.wait()
                if not lost.is_set():
                    await connection.execute("SELECT 1", timeout=CONNECT_TIMEOUT_S)
        finally:
            connection.terminate()
