"""Sessions that differ from the library's calendars, kept in the database for every process."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

from asyncpg import Record

from cluster.market import calendars
from cluster.market.calendars import Override
from cluster.storage import audit
from cluster.storage.audit import Author
from cluster.storage.database import Connection, Database

FRESH_S = 30.0
"""How long a process goes by what it has read."""

_ALL = "SELECT calendar, session, open, close, reason FROM calendar_overrides ORDER BY calendar, session"
_PUT = """
INSERT INTO calendar_overrides AS known (calendar, session, open, close, reason) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (calendar, session) DO UPDATE
SET open = EXCLUDED.open, close = EXCLUDED.close, reason = EXCLUDED.reason, updated_at = now()
WHERE (known.open, known.close, known.reason)
      IS DISTINCT FROM (EXCLUDED.open, EXCLUDED.close, EXCLUDED.reason)
RETURNING calendar, session
"""
_DROP = "DELETE FROM calendar_overrides WHERE calendar = $1 AND session = $2 RETURNING calendar, session"

_read: tuple[str, float] = ("", float("-inf"))
"""Which database the overrides of this process are of, and when they were read."""


async def listed(database: Database) -> list[Override]:
    """All overrides, by calendar and session."""
    async with database.connection() as connection:
        return [Override(*row) for row in await connection.fetch(_ALL)]


async def put(database: Database, overrides: Sequence[Override], *, by: Author | None = None) -> int:
    """Add the overrides, or let them replace those of the same session; how many were new or different.

    All of them or none. Every process goes by them within `FRESH_S` seconds.
    """
    async with database.transaction() as connection:
        rows = [(each.calendar, each.session, each.open, each.close, each.reason) for each in overrides]
        changed = await connection.fetchmany(_PUT, rows)
        await _audited(connection, by, "calendar.change", changed)
    return len(changed)


async def drop(database: Database, overrides: Sequence[Override], *, by: Author | None = None) -> int:
    """Take the sessions of `overrides` from the calendars of the library again; how many were overridden."""
    async with database.transaction() as connection:
        rows = [(each.calendar, each.session) for each in overrides]
        dropped = await connection.fetchmany(_DROP, rows)
        await _audited(connection, by, "calendar.restore", dropped)
    return len(dropped)


async def _audited(connection: Connection, by: Author | None, action: str, rows: Sequence[Record]) -> None:
    sessions: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        sessions[row["calendar"]].append(str(row["session"]))
    for calendar, changed in sorted(sessions.items()):
        await audit.record(connection, by, action, calendar, sessions=changed)


async def refresh(database: Database, *, fresh_s: float = FRESH_S) -> None:
    """Have the calendars of this process go by the overrides of `database`, read at most `fresh_s` ago."""
    global _read  # noqa: PLW0603 - the calendars, too, are those of the process
    now_s = time.monotonic()
    of, at_s = _read
    if of == database.dsn and now_s - at_s < fresh_s:
        return
    calendars.install_overrides(await listed(database))
    _read = (database.dsn, now_s)
