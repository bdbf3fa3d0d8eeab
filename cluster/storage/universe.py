"""The symbols FinSight watches, and the versions of that list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import asyncpg

from cluster.errors import InputError
from cluster.market.symbols import Instrument, Tier
from cluster.storage.database import Connection, Database

_FIELDS = tuple(field.name for field in fields(Instrument))
_COLUMNS = ", ".join(_FIELDS)
_UPSERT = f"""
INSERT INTO symbol_universe AS stored ({_COLUMNS})
VALUES ({", ".join(f"${place}" for place in range(1, len(_FIELDS) + 1))})
ON CONFLICT (symbol) DO UPDATE
SET ({_COLUMNS}, updated_at) = ROW ({", ".join(f"excluded.{name}" for name in _FIELDS)}, now())
WHERE ({", ".join(f"stored.{name}" for name in _FIELDS)})
      IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in _FIELDS)})
"""  # noqa: S608 (column names of our own)
# A conflict locks the row, which shows in its xmax; a new row has none.
_IMPORT = f"{_UPSERT} RETURNING symbol, xmax = 0 AS added"
_ADD_MISSING = f"""
INSERT INTO symbol_universe ({_COLUMNS})
VALUES ({", ".join(f"${place}" for place in range(1, len(_FIELDS) + 1))})
ON CONFLICT (symbol) DO NOTHING RETURNING symbol
"""  # noqa: S608
_LIST = f"""
SELECT {_COLUMNS} FROM symbol_universe
WHERE ($1::text IS NULL OR tier = $1) AND (active OR NOT $2) AND symbol > $3
ORDER BY symbol LIMIT $4
"""  # noqa: S608
_GET = f"SELECT {_COLUMNS} FROM symbol_universe WHERE symbol = $1"  # noqa: S608
_ADD_VERSION = """
INSERT INTO universe_versions (version_tag, source_meta) VALUES ($1, $2::jsonb)
RETURNING id, version_tag, source_meta, created_at
"""
_VERSIONS = """
SELECT id, version_tag, source_meta, created_at FROM universe_versions
WHERE $2::bigint IS NULL OR id < $2 ORDER BY id DESC LIMIT $1
"""


@dataclass(frozen=True)
class UniverseVersion:
    """A named state of the universe and where it came from."""

    id: int
    """Grows with every version."""
    version_tag: str
    source_meta: Mapping[str, Any]
    created_at: datetime


async def upsert(database: Database, instruments: Sequence[Instrument]) -> None:
    """Add the instruments, or bring those that are there up to date; all of them or none."""
    async with database.transaction() as connection:
        await connection.executemany(_UPSERT, sorted(map(_row, instruments)))


async def add_missing(
    database: Database, instruments: Sequence[Instrument], version_tag: str, source_meta: Mapping[str, Any]
) -> list[str]:
    """Add the instruments that are not there and, if there are any, a version that lists them as `added`.

    Rows that are there stay as they are, so what a user has set is kept. Returns the symbols that were added.
    """
    async with database.transaction() as connection:
        rows = await connection.fetchmany(_ADD_MISSING, sorted(map(_row, instruments)))
        added = [row["symbol"] for row in rows]
        if added:
            await _add_version(connection, version_tag, {**source_meta, "added": added})
    return added


async def add(database: Database, instrument: Instrument) -> bool:
    """Add the instrument; False when its symbol is there already, which then stays as it is."""
    async with database.connection() as connection:
        return await connection.fetchval(_ADD_MISSING, *_row(instrument)) is not None


async def change(database: Database, symbol: str, changes: Mapping[str, Any]) -> Instrument | None:
    """Set the fields in `changes`; answers what is there afterwards, None for an unknown symbol.

    Two changes of different fields at once are both kept.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(f"{_GET} FOR UPDATE", symbol)
        if row is None:
            return None
        changed = replace(_instrument(row), **changes)
        await connection.execute(_UPSERT, *_row(changed))
    return changed


@dataclass(frozen=True)
class Imported:
    """What an import did; the lists name symbols."""

    version: UniverseVersion
    added: list[str]
    changed: list[str]
    unchanged: int


async def import_all(
    database: Database, instruments: Sequence[Instrument], version_tag: str, source_meta: Mapping[str, Any]
) -> Imported:
    """Add or bring up to date all instruments and record the version, in one transaction.

    The version keeps what was `added` and `changed`. A tag that is taken is an `InputError`, and nothing is
    changed.
    """
    async with database.transaction() as connection:
        rows = await connection.fetchmany(_IMPORT, sorted(map(_row, instruments)))
        added = [row["symbol"] for row in rows if row["added"]]
        changed = [row["symbol"] for row in rows if not row["added"]]
        meta = {**source_meta, "added": added, "changed": changed}
        version = await _add_version(connection, version_tag, meta)
    return Imported(version, added, changed, len(instruments) - len(rows))


async def listed(
    database: Database,
    *,
    tier: Tier | None = None,
    active_only: bool = True,
    after: str = "",
    limit: int | None = None,
) -> list[Instrument]:
    """Instruments by symbol; `after` and `limit` page through them."""
    async with database.connection() as connection:
        rows = await connection.fetch(_LIST, tier, active_only, after, limit)
    return [_instrument(row) for row in rows]


async def get(database: Database, symbol: str) -> Instrument | None:
    """The instrument of `symbol`, active or not; None when the universe does not have it."""
    async with database.connection() as connection:
        row = await connection.fetchrow(_GET, symbol)
    return None if row is None else _instrument(row)


async def add_version(
    database: Database, version_tag: str, source_meta: Mapping[str, Any]
) -> UniverseVersion:
    """Record a version of the universe; a tag that is taken is an `InputError`."""
    async with database.connection() as connection:
        return await _add_version(connection, version_tag, source_meta)


async def _add_version(
    connection: Connection, version_tag: str, source_meta: Mapping[str, Any]
) -> UniverseVersion:
    try:
        row = await connection.fetchrow(_ADD_VERSION, version_tag, json.dumps(source_meta))
    except asyncpg.UniqueViolationError as error:
        raise InputError(f"universe version {version_tag!r} exists already; choose another tag") from error
    assert row is not None  # noqa: S101 (an insert that returns always gives its row)
    return _version(row)


async def versions(database: Database, limit: int = 100, before: int | None = None) -> list[UniverseVersion]:
    """The last versions, newest first; those older than the id `before`, if it is given."""
    async with database.connection() as connection:
        return [_version(row) for row in await connection.fetch(_VERSIONS, limit, before)]


def _row(instrument: Instrument) -> tuple[Any, ...]:
    return tuple(getattr(instrument, name) for name in _FIELDS)


def _instrument(row: asyncpg.Record) -> Instrument:
    return Instrument(**dict(row))


def _version(row: asyncpg.Record) -> UniverseVersion:
    return UniverseVersion(row["id"], row["version_tag"], json.loads(row["source_meta"]), row["created_at"])
