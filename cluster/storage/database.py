"""The connection pool: one per process, UTC, and with a limit on everything that can wait.

The server ends a session that pauses in a transaction, whose network is gone, or that does not take what it
is sent. What no time limit of PostgreSQL ends is a transaction whose client froze inside of a statement, such
as a `COPY`: whoever has waited in vain for a lock ends the sessions of such clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from cluster import logs
from cluster.errors import ConfigError, StorageError
from cluster.redaction import redact
from cluster.storage.dsn import address, require_dsn
from cluster.storage.outage import is_outage

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

log = logs.get(__name__)

CONNECT_TIMEOUT_S = 10.0
RECONNECT_S = 2.0
"""Pause of an actor between two tries to reach the database."""
_LAST_WORD_S = 1.0  # for the server to confirm that it has given up a statement or a transaction
_GRACE_S = 10.0
"""How much later than the server we give up ourselves: a server that has frozen gives nothing up."""
_APPLICATION = "finsight"
_FROZEN_AFTER_S = 70.0
"""A statement that still waits for its client after this time never ends: even a slow `COPY` takes less."""
_END_FROZEN = """
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = $1
  AND state = 'active' AND wait_event IN ('ClientRead', 'ClientWrite')
  AND query_start < clock_timestamp() - $2::interval
"""
_REFUSED = (
    asyncpg.ClientConfigurationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    ConnectionResetError,
    asyncpg.InternalClientError,  # the server said good-bye between two of our messages
)
_WAITED = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError)


class Database:
    """A pool of connections to one PostgreSQL database. Open it once, close it when the process ends."""

    def __init__(self, dsn: str, pool: Pool, *, frozen_after_s: float = _FROZEN_AFTER_S) -> None:
        self.dsn = dsn
        self.pool = pool
        self._frozen_after = timedelta(seconds=frozen_after_s)

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        min_size: int = 1,
        max_size: int = 8,
        statement_timeout_s: float = 60,
        lock_timeout_s: float = 30,
        idle_in_transaction_timeout_s: float = 60,
        idle_session_timeout_s: float = 0,
        reset_sessions: bool = True,
        grace_s: float = _GRACE_S,
        frozen_after_s: float = _FROZEN_AFTER_S,
    ) -> Database:
        """Connect; raises `StorageError` when the server is out of reach, `ConfigError` on a wrong DSN.

        `reset_sessions`: ask the server to forget the session's settings and locks after every use. Without
        it a use costs one round trip less; for programs whose statements leave nothing in the session.
        `idle_session_timeout_s`: the server ends a session that says nothing for so long, and with it the
        locks of a client that froze; 0: never.
        A server that does not answer is given up `grace_s` after it should have given up a statement itself.
        `frozen_after_s`: the session of any process of FinSight whose statement has waited so long for its
        client is ended by a statement of this pool that has waited in vain.
        """
        limits = {
            "statement_timeout": statement_timeout_s,
            "lock_timeout": lock_timeout_s,
            "idle_in_transaction_session_timeout": idle_in_transaction_timeout_s,
            "idle_session_timeout": idle_session_timeout_s,
        }
        with _connecting(require_dsn(dsn)):
            pool = await asyncpg.create_pool(
                dsn,
                min_size=min_size,
                max_size=max_size,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=statement_timeout_s + grace_s,
                server_settings=_session_settings(limits, statement_timeout_s + grace_s),
                reset=None if reset_sessions else _leave,
            )
        return cls(dsn, pool, frozen_after_s=frozen_after_s)

    async def close(self) -> None:
        """Wait for the connections in use, then close them all."""
        await self.pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a READ COMMITTED transaction: commits at the end, rolls back on an exception."""
        async with self.connection() as connection:
            transaction = connection.transaction(isolation="read_committed")
            await transaction.start()
            try:
                yield connection
            except BaseException:
                with suppress(Exception):  # else closing the connection rolls back
                    async with asyncio.timeout(_LAST_WORD_S):
                        await transaction.rollback()
                raise
            await transaction.commit()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside a transaction.

        What is the trouble of the server itself is a `StorageError`: out of reach, full, read-only, a timeout
        of `open` that ran out, a deadlock. What it says to a statement comes as asyncpg raises it.
        """
        with _connecting(self.dsn):
            connection = await self.pool.acquire(timeout=CONNECT_TIMEOUT_S)
        try:
            with _working(self.dsn, connection):
                yield connection
        except BaseException as error:
            if isinstance(error.__cause__, _WAITED):
                with suppress(Exception):
                    await self._end_frozen(connection)
            with suppress(Exception):  # cut off, it would not answer: closed then, and the reason stays
                await self.pool.release(connection, timeout=_LAST_WORD_S)
            raise
        await self.pool.release(connection)

    async def end_frozen(self) -> None:
        """End the sessions of processes that froze inside of a statement: who does not wait for them, too."""
        async with self.connection() as connection:
            await self._end_frozen(connection)

    async def _end_frozen(self, connection: Connection) -> None:
        """A client that froze inside of a statement may hold what we have waited for."""
        arguments = (_APPLICATION, self._frozen_after)
        if ended := await connection.fetchval(_END_FROZEN, *arguments, timeout=_LAST_WORD_S):
            log.warning("frozen_sessions_ended", sessions=ended)


@contextmanager
def _connecting(dsn: str) -> Iterator[None]:
    """Errors of connecting name the server, but never the password."""
    try:
        yield
    except _REFUSED as error:
        raise ConfigError(f"PostgreSQL at {address(dsn)} refused: {error}. Check DATABASE_URL.") from error
    except TimeoutError as error:
        message = f"PostgreSQL at {address(dsn)} gave no connection within {CONNECT_TIMEOUT_S:g} s."
        raise StorageError(message) from error
    except (OSError, asyncpg.PostgresError) as error:
        if isinstance(error, asyncpg.PostgresError) and not is_outage(error):
            raise
        raise StorageError(f"PostgreSQL at {address(dsn)} cannot be reached: {error}") from error


@contextmanager
def _working(dsn: str, connection: Connection) -> Iterator[None]:
    try:
        yield
    except _WAITED as error:
        raise StorageError(
            f"PostgreSQL at {address(dsn)} gave up a statement: {error}. Try again."
        ) from error
    except TimeoutError as error:
        raise StorageError(f"PostgreSQL at {address(dsn)} does not answer. Try again.") from error
    except (*_LOST, asyncpg.InterfaceError) as error:
        # Also what asyncpg raises for arguments of a wrong type, which is no matter of the server.
        if isinstance(error, asyncpg.InterfaceError) and not _is_closed(connection):
            raise
        raise StorageError(f"The connection to PostgreSQL at {address(dsn)} was lost: {error}") from error
    except asyncpg.PostgresError as error:
        if not is_outage(error):
            raise
        raise StorageError(f"PostgreSQL at {address(dsn)} is in trouble: {error}. Try again.") from error


def _is_closed(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # cut, and already taken out of the pool
        return True


async def _leave(_: Connection) -> None:
    """What is left of a session when nothing has to be reset."""


def _session_settings(limits_s: Mapping[str, float], longest_send_s: float) -> dict[str, str]:
    milliseconds = {name: str(round(seconds * 1000)) for name, seconds in limits_s.items()}
    # A client that vanished is noticed after a minute, instead of the two hours of the operating system.
    vanished = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
    return {
        "timezone": "UTC",
        "application_name": _APPLICATION,
        "jit": "off",  # our queries are short or bulk copies: compiling them costs more than it saves
        "tcp_user_timeout": str(round(longest_send_s * 1000)),
        **vanished,
        **milliseconds,
    }


async def opened_at_last(open_one: Callable[[], Awaitable[Database]]) -> Database:
    """The pool, as soon as `open_one` gets it: the server may be away, and a reload may mend a wrong DSN."""
    while True:
        try:
            return await open_one()
        except (StorageError, ConfigError) as error:
            log.warning("database_unreachable", reason=redact(str(error)))
            await asyncio.sleep(RECONNECT_S)
