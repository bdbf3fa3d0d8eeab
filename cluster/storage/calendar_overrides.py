"""Sessions that differ from the library's calendars, kept in the database for every process."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cluster.market import calendars
from cluster.market.calendars import Override
from cluster.storage.database import Database

FRESH_S = 30.0
"""How long a process goes by what it has read."""

_ALL = "SELECT calendar, session, open, close, reason FROM calendar_overrides ORDER BY calendar, session"
_PUT = """
INSERT INTO calendar_overrides AS known (calendar, session, open, close, reason) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (calendar, session) DO UPDATE
SET open = EXCLUDED.open, close = EXCLUDED.close, reason = EXCLUDED.reason, updated_at = now()
WHERE (known.open, known.close, known.reason)
      IS DISTINCT FROM (EXCLUDED.open, EXCLUDED.close, EXCLUDED.reason)
RETURNING session
"""
_DROP = "DELETE FROM calendar_overrides WHERE calendar = $1 AND session = $2 RETURNING session"

_read: tuple[str, float] = ("", float("-inf"))
"""Which database the overrides of this process are of, and when they were read."""


async def listed(database: Database) -> list[Override]:
    """All overrides, by calendar and session."""
    async with database.connection() as connection:
        return [Override(*row) for row in await connection.fetch(_ALL)]


async def put(database: Database, overrides: Sequence[Override]) -> int:
    """Add the overrides, or let them replace those of the same session; how many were new or different.

    All of them or none. Every process goes by them within `FRESH_S` seconds.
    """
    async with database.transaction() as connection:
        rows = [(each.calendar, each.session, each.open, each.close, each.reason) for each in overrides]
        return len(await connection.fetchmany(_PUT, rows))


async def drop(database: Database, overrides: Sequence[Override]) -> int:
    """Take the sessions of `overrides` from the calendars of the library again; how many were overridden."""
    async with database.transaction() as connection:
        rows = [(each.calendar, each.session) for each in overrides]
        return len(await connection.fetchmany(_DROP, rows))


async def refresh(database: Database, *, fresh_s: float = FRESH_S) -> None:
    """Have the calendars of this process go by the overrides of `database`, read at most `fresh_s` ago."""
    global _read  # noqa: PLW0603 - the calendars, too, are those of the process
    now_s = time.monotonic()
    of, at_s = _read
    if of == database.dsn and now_s - at_s < fresh_s:
        return
    calendars.install_overrides(await listed(database))
    _read = (database.dsn, now_s)
