"""Who does a look that several clusters on one database have due: whoever says so first in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from cluster import logs
from cluster.ingest.cadence import Cadence
from cluster.redaction import redact
from cluster.storage.database import Database

log = logs.get(__name__)

Claim = Literal["ours", "theirs", "done", "unknown"]
"""We do it; another does; it has been done; Redis is out of reach."""

LEASE_S = 60.0
"""A look whose collector has not been heard of for this long may be done by another."""
_DONE = b"done"
_DATABASE = "(SELECT oid FROM pg_database WHERE datname = current_database())"
# One for all databases of a server and for all servers; a copy of a database has a name of its own.
_IDENTITY = f"SELECT (SELECT system_identifier FROM pg_control_system()) || '-' || {_DATABASE}"  # noqa: S608
# Where a role may not ask that: only a dump restored under the same number on another server has the same.
_OWN_IDENTITY = f"""
SELECT (SELECT extract(epoch FROM min(applied_at)) FROM schema_migrations) || '-' || {_DATABASE}
"""  # noqa: S608


class Claims:
    """The looks of one shard, shared by all collectors on one database that have as many shards.

    A claim is a lease: who has died in the middle is followed by another. Both may then do the look, which
    writes nothing twice; only calls to providers are spent. A Redis that forgot does the same.
    """

    def __init__(self, redis: Redis, scope: str, *, timeout_s: float = 2.0) -> None:
        self._redis, self._scope, self._timeout_s = redis, scope, timeout_s

    async def claim(self, cadence: Cadence, number: int) -> Claim:
        """Take look `number`, or hear who has it."""
        key = self._key(cadence, number)
        told: Claim = "unknown"
        with _out_of_reach():
            async with asyncio.timeout(self._timeout_s):
                if await self._redis.set(key, b"begun", nx=True, px=_lease_ms(cadence)):
                    told = "ours"
                else:
                    told = "done" if await self._redis.get(key) == _DONE else "theirs"
        return told

    async def hold(self, cadence: Cadence, number: int) -> None:
        """Keep look `number` from others until this is cancelled, however long it takes."""
        while True:
            await asyncio.sleep(_lease_ms(cadence) / 3_000)
            with _out_of_reach():
                async with asyncio.timeout(self._timeout_s):
                    await self._redis.pexpire(self._key(cadence, number), _lease_ms(cadence), gt=True)

    async def done(self, cadence: Cadence, number: int) -> None:
        """Nobody has to do look `number` any more."""
        with _out_of_reach():
            async with asyncio.timeout(self._timeout_s):
                await self._redis.set(self._key(cadence, number), _DONE, px=round(2_000 * cadence.cadence_s))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _key(self, cadence: Cadence, number: int) -> str:
        which = f"{cadence.tier}:{cadence.interval}:{cadence.cadence_s:g}:{number}"
        return f"finsight:sweep:{self._scope}:{which}"


def _lease_ms(cadence: Cadence) -> int:
    return round(1_000 * min(LEASE_S, cadence.cadence_s))


@contextmanager
def _out_of_reach() -> Iterator[None]:
    """Go on without a Redis that does not answer."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("claims_unreachable", reason=redact(f"{type(error).__name__} {error}".strip()))


async def scope_of(database: Database, shard: int, shards: int) -> str:
    """What the claims of one shard on `database` are told apart by from all others."""
    async with database.connection() as connection:
        try:
            identity = await connection.fetchval(_IDENTITY)
        except asyncpg.InsufficientPrivilegeError:
            identity = await connection.fetchval(_OWN_IDENTITY)
    return f"{identity}:{shard}/{shards}"
