"""The symbols FinSight watches, and the versions of that list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

import asyncpg

from cluster.errors import InputError
from cluster.market.symbols import Instrument, Tier
from cluster.storage.database import Database

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
RETURNING version_tag, source_meta, created_at
"""
_VERSIONS = "SELECT version_tag, source_meta, created_at FROM universe_versions ORDER BY id DESC LIMIT $1"


@dataclass(frozen=True)
class UniverseVersion:
    """A named state of the universe and where it came from."""

    version_tag: str
    source_meta: Mapping[str, Any]
    created_at: datetime


async def upsert(database: Database, instruments: Sequence[Instrument]) -> None:
    """Add the instruments, or bring those that are there up to date; all of them or none."""
    rows = [tuple(asdict(instrument)[name] for name in _FIELDS) for instrument in instruments]
    async with database.transaction() as connection:
        await connection.executemany(_UPSERT, sorted(rows))


async def add_missing(
    database: Database, instruments: Sequence[Instrument], version_tag: str, source_meta: Mapping[str, Any]
) -> list[str]:
    """Add the instruments that are not there and, if there are any, a version that lists them as `added`.

    Rows that are there stay as they are, so what a user has set is kept. Returns the symbols that were added.
    """
    rows = [tuple(asdict(instrument)[name] for name in _FIELDS) for instrument in instruments]
    async with database.transaction() as connection:
        added = [row["symbol"] for row in await connection.fetchmany(_ADD_MISSING, sorted(rows))]
        if added:
            meta = json.dumps({**source_meta, "added": added})
            await connection.fetchrow(_ADD_VERSION, version_tag, meta)
    return added


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
    try:
        async with database.connection() as connection:
            row = await connection.fetchrow(_ADD_VERSION, version_tag, json.dumps(source_meta))
    except asyncpg.UniqueViolationError as error:
        raise InputError(f"universe version {version_tag!r} exists already; choose another tag") from error
    assert row is not None  # noqa: S101 (an insert that returns always gives its row)
    return _version(row)


async def versions(database: Database, limit: int = 100) -> list[UniverseVersion]:
    """The last versions, newest first."""
    async with database.connection() as connection:
        return [_version(row) for row in await connection.fetch(_VERSIONS, limit)]


def _instrument(row: asyncpg.Record) -> Instrument:
    return Instrument(**dict(row))


def _version(row: asyncpg.Record) -> UniverseVersion:
    return UniverseVersion(row["version_tag"], json.loads(row["source_meta"]), row["created_at"])
