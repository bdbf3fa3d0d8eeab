"""What the database needs from time to time, as duties: rollups, partitions, compression, retention."""

from __future__ import annotations

from dataclasses import dataclass

from cluster import logs
from cluster.clock import Clock
from cluster.storage import retention, rollups, session_hours
from cluster.storage.database import Database

log = logs.get(__name__)

ROLLUPS_PERIOD_S = 60.0
STORAGE_PERIOD_S = 600.0

_LOCK = 0x75706B70  # "upkp"


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long, in days."""

    minutes_days: int = 365
    """Minutes; their bars of 5m and 1h stay."""
    uncompressed_days: int = 14
    """With TimescaleDB."""


async def roll(database: Database, clock: Clock) -> None:
    """Bring the rollups of 5m and 1h up to date."""
    await rollups.refresh(database, clock.now())


async def keep(database: Database, clock: Clock, keeping: Keeping) -> None:
    """One round of everything else; nothing when another cluster is at it."""
    async with database.connection() as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            return
        try:
            await _keep(database, clock, keeping)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _keep(database: Database, clock: Clock, keeping: Keeping) -> None:
    now = clock.now()
    await retention.make_partitions(database, now)
    await session_hours.align(database, now)
    await rollups.refresh(database, now)
    dropped = await retention.drop_minutes(database, retention.horizon(now, keeping.minutes_days))
    compressed = await retention.compress(database, retention.horizon(now, keeping.uncompressed_days))
    if dropped or compressed:
        log.info("storage_kept", dropped=dropped, compressed=compressed)
