"""The versions of the list of symbols: a row for every write, with what it did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from cluster.errors import InputError
from cluster.market.symbols import require_text
from cluster.storage.audit import Author
from cluster.storage.database import Connection, Database

_LONGEST_TAG = 256
_ADD_VERSION = """
INSERT INTO universe_versions (version_tag, source_meta) VALUES ($1, $2::jsonb)
RETURNING id, version_tag, source_meta, created_at
"""
_TAG = """
SELECT $1 || '-' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS.US"Z"')
"""
_VERSIONS = """
SELECT id, version_tag, source_meta, created_at FROM universe_versions
WHERE $2::bigint IS NULL OR id < $2 ORDER BY id DESC LIMIT $1
"""


@dataclass(frozen=True)
class Version:
    """A named state of the universe and where it came from."""

    id: int
    """Grows with every version."""
    version_tag: str
    source_meta: Mapping[str, Any]
    created_at: datetime


async def add(connection: Connection, version_tag: str, source_meta: Mapping[str, Any]) -> Version:
    """A version, in the caller's transaction; `InputError` when the tag is taken or cannot be one."""
    require_text("version tag", version_tag, _LONGEST_TAG)
    try:
        row = await connection.fetchrow(_ADD_VERSION, version_tag, json.dumps(source_meta))
    except asyncpg.UniqueViolationError as error:
        raise InputError(f"universe version {version_tag!r} exists already; choose another tag") from error
    assert row is not None  # noqa: S101 (an insert that returns always gives its row)
    return _version(row)


async def add_own(connection: Connection, symbol: str, by: Author | None, meta: Mapping[str, Any]) -> None:
    """A version of a single write, named after symbol and time; nobody has to think of a tag.

    Everybody may read versions, so who it was is told by the audit log alone.
    """
    tag = await connection.fetchval(_TAG, symbol)
    source = {} if by is None else {"source": "manual"}
    await add(connection, tag, {**source, **meta})


async def listed(database: Database, limit: int = 100, before: int | None = None) -> list[Version]:
    """The last versions, newest first; those older than the id `before`, if it is given."""
    async with database.connection() as connection:
        return [_version(row) for row in await connection.fetch(_VERSIONS, limit, before)]


def _version(row: asyncpg.Record) -> Version:
    return Version(row["id"], row["version_tag"], json.loads(row["source_meta"]), row["created_at"])
