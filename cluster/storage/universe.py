"""The symbols FinSight watches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import asyncpg

from cluster import logs
from cluster.errors import InputError
from cluster.market.symbols import Instrument, Tier, require_texts
from cluster.storage import audit, universe_versions
from cluster.storage.audit import Author
from cluster.storage.database import Connection, Database
from cluster.storage.universe_versions import Version

log = logs.get(__name__)

_FIELDS = tuple(field.name for field in fields(Instrument))
_COLUMNS = ", ".join(_FIELDS)
# A conflict locks the row, which shows in its xmax; a new row has none.
_UPSERT = f"""
INSERT INTO symbol_universe AS stored ({_COLUMNS})
VALUES ({", ".join(f"${place}" for place in range(1, len(_FIELDS) + 1))})
ON CONFLICT (symbol) DO UPDATE SET ({{given}}, updated_at) = ROW ({{new}}, now())
WHERE ({{old}}) IS DISTINCT FROM ({{new}})
RETURNING symbol, xmax = 0 AS added
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
_LIST_AS_OF = f"""
SELECT {_COLUMNS} FROM symbol_universe_history
WHERE valid_from <= $5 AND (valid_to > $5 OR valid_to IS NULL)
  AND ($1::text IS NULL OR tier = $1) AND (active OR NOT $2) AND symbol > $3
ORDER BY symbol LIMIT $4
"""  # noqa: S608
_GET = f"SELECT {_COLUMNS} FROM symbol_universe WHERE symbol = $1"  # noqa: S608
_SET_INACTIVE = """
UPDATE symbol_universe SET active = false, updated_at = now()
WHERE active AND symbol <> ALL ($1::text[]) RETURNING symbol
"""


async def add_missing(
    database: Database, instruments: Sequence[Instrument], version_tag: str, source_meta: Mapping[str, Any]
) -> list[str]:
    """Add the instruments that are not there and, if there are any, a version that lists them as `added`.

    Rows that are there stay as they are, so what a user has set is kept. Returns the symbols that were added.
    """
    async with _writing(database) as connection:
        rows = await connection.fetchmany(_ADD_MISSING, sorted(map(_row, instruments)))
        added = [row["symbol"] for row in rows]
        if added:
            await universe_versions.add(connection, version_tag, {**source_meta, "added": added})
    return added


async def add(database: Database, instrument: Instrument, *, by: Author | None = None) -> bool:
    """Add the instrument, as a version; False when its symbol is there already, which then stays as it is."""
    require_texts(asdict(instrument))
    symbol = instrument.symbol
    async with _writing(database) as connection:
        if await connection.fetchval(_ADD_MISSING, *_row(instrument)) is None:
            return False
        await universe_versions.add_own(connection, symbol, by, {"added": [symbol]})
        await audit.record(connection, by, "symbol.add", symbol, after=asdict(instrument))
    return True


async def change(
    database: Database, symbol: str, changes: Mapping[str, Any], *, by: Author | None = None
) -> Instrument | None:
    """Set the fields in `changes`, as a version; answers what is there then, None for an unknown symbol.

    Two changes of different fields at once are both kept. What changes nothing makes no version. A row that
    could not be read is mended by what makes it right. `InputError` on what the universe does not take.
    """
    require_texts(changes)
    async with _writing(database) as connection:
        row = await connection.fetchrow(f"{_GET} FOR UPDATE", symbol)
        if row is None:
            return None
        before = dict(row)
        after = Instrument(**{**before, **changes})
        if asdict(after) != before:
            await connection.execute(_upsert(_FIELDS), *_row(after))
            await universe_versions.add_own(connection, symbol, by, {"changed": [symbol]})
            difference = _difference(before, asdict(after))
            await audit.record(connection, by, "symbol.change", symbol, **difference)
    return after


async def change_all(
    database: Database,
    changes: Mapping[str, Mapping[str, Any]],
    version_tag: str,
    source_meta: Mapping[str, Any],
    *,
    by: Author | None = None,
) -> Version:
    """Set the fields of several symbols as one version, all of them or none.

    Symbols that are unknown, or whose row cannot be read, are left out; the latter are logged.
    """
    async with _writing(database) as connection:
        changed = []
        for symbol, fields_of_it in sorted(changes.items()):
            row = await connection.fetchrow(f"{_GET} FOR UPDATE", symbol)
            before = None if row is None else _readable(row)
            if before is not None:
                await connection.execute(_upsert(_FIELDS), *_row(replace(before, **fields_of_it)))
                changed.append(symbol)
        version = await universe_versions.add(connection, version_tag, {**source_meta, "changed": changed})
        told = {symbol: dict(changes[symbol]) for symbol in changed}
        await audit.record(connection, by, "symbols.change", version_tag, changes=told)
    return version


@dataclass(frozen=True)
class Imported:
    """What an import did; the lists name symbols."""

    version: Version
    added: list[str]
    changed: list[str]
    deactivated: list[str]
    unchanged: int


async def import_all(
    database: Database,
    instruments: Sequence[Instrument],
    version_tag: str,
    source_meta: Mapping[str, Any],
    *,
    columns: Collection[str] = _FIELDS,
    deactivate_missing: bool = False,
    by: Author | None = None,
) -> Imported:
    """Add or bring up to date all instruments and record the version, in one transaction.

    `columns`: what is brought up to date of symbols that are there; all else of them stays as it is.
    `deactivate_missing`: symbols that are not among them become inactive; otherwise they stay as they are.
    The version keeps what was `added`, `changed` and `deactivated`. A tag that is taken is an `InputError`,
    and nothing is changed.
    """
    async with _writing(database) as connection:
        rows = await connection.fetchmany(_upsert(columns), sorted(map(_row, instruments)))
        added = [row["symbol"] for row in rows if row["added"]]
        changed = [row["symbol"] for row in rows if not row["added"]]
        deactivated: list[str] = []
        if deactivate_missing:
            gone = await connection.fetch(_SET_INACTIVE, [each.symbol for each in instruments])
            deactivated = sorted(row["symbol"] for row in gone)
        done = {"added": added, "changed": changed, "deactivated": deactivated}
        version = await universe_versions.add(connection, version_tag, {**source_meta, **done})
        await audit.record(connection, by, "symbols.import", version_tag, **source_meta, **done)
    return Imported(version, added, changed, deactivated, len(instruments) - len(rows))


async def listed(
    database: Database,
    *,
    tier: Tier | None = None,
    active_only: bool = True,
    after: str = "",
    limit: int | None = None,
    as_of: datetime | None = None,
) -> list[Instrument]:
    """Instruments by symbol; `after` and `limit` page through them.

    `as_of`: as they were then. A symbol that was changed, set inactive or deleted later is answered as it
    was, so nothing of today's knowledge gets in. A row that cannot be read is left out and logged.
    """
    found: list[Instrument] = []
    query, *then = (_LIST,) if as_of is None else (_LIST_AS_OF, as_of)
    async with database.connection() as connection:
        while True:
            most = None if limit is None else limit - len(found)
            rows = await connection.fetch(query, tier, active_only, after, most, *then)
            read = map(_readable, rows)
            found += [each for each in read if each]
            if len(rows) != most or len(found) == limit:
                return found
            after = rows[-1]["symbol"]  # a row was left out: the page is filled up


async def get(database: Database, symbol: str) -> Instrument | None:
    """The instrument of `symbol`, active or not; None when the universe has none that can be read."""
    async with database.connection() as connection:
        row = await connection.fetchrow(_GET, symbol)
    return None if row is None else _readable(row)


@asynccontextmanager
async def _writing(database: Database) -> AsyncIterator[Connection]:
    """A transaction; what the checks of the table refuse is an `InputError` that says what is allowed.

    The server's own text is not passed on: it shows the whole row.
    """
    try:
        async with database.transaction() as connection:
            yield connection
    except asyncpg.CheckViolationError as error:
        broken = error.constraint_name
        raise InputError(f"the universe does not take this, and nothing was changed: {broken}") from error


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    names = [name for name in old if old[name] != new[name]]
    return {
        "before": {name: old[name] for name in names},
        "after": {name: new[name] for name in names},
    }


def _row(instrument: Instrument) -> tuple[Any, ...]:
    return tuple(getattr(instrument, name) for name in _FIELDS)


def _upsert(columns: Collection[str]) -> str:
    """Inserts a row, or brings `columns` of it up to date."""
    given = [name for name in _FIELDS if name in columns]
    old, new = (", ".join(f"{side}.{name}" for name in given) for side in ("stored", "excluded"))
    return _UPSERT.format(given=", ".join(given), old=old, new=new)


def _readable(row: asyncpg.Record) -> Instrument | None:
    """None for a row from before the table had its checks that breaks one: it must not stop all others."""
    try:
        return Instrument(**dict(row))
    except InputError as error:
        _tell_unreadable(row["symbol"], str(error))
        return None


@lru_cache(maxsize=1_024)
def _tell_unreadable(symbol: str, reason: str) -> None:
    """Once a process and row: the looks of the collectors read it every half a minute."""
    log.error("symbol_left_out", symbol=symbol, reason=reason, remedy="correct or delete its row")
