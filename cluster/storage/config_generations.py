"""The settings that were taken over while the system ran: numbers by which its processes learn of it."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.storage.database import Connection, Database

_ADD = "INSERT INTO config_generations (digest) VALUES ($1) RETURNING generation, digest"
_NEWEST = "SELECT generation, digest FROM config_generations ORDER BY generation DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Generation:
    """One reload."""

    generation: int
    """Grows with every reload."""
    digest: str
    """See `cluster.settings.digest`; tells whether another process has read the same."""


async def add(connection: Connection, digest: str) -> Generation:
    """The next generation; others see it when the transaction is committed."""
    row = await connection.fetchrow(_ADD, digest)
    assert row is not None  # noqa: S101 (an insert that returns always gives its row)
    return Generation(**dict(row))


async def newest(database: Database) -> Generation | None:
    """The generation that holds; `None` before the first reload."""
    async with database.connection() as connection:
        row = await connection.fetchrow(_NEWEST)
    return None if row is None else Generation(**dict(row))
