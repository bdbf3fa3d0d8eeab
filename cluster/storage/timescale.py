"""TimescaleDB, where the server has it: the candle tables become hypertables with continuous aggregates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import psycopg2

from cluster import logs
from cluster.errors import StorageError

log = logs.get(__name__)

Use = Literal["auto", "convert", "off"]
"""auto: hypertables where no bar is stored yet; convert: also where bars are; off: native partitions."""

OLDEST = (2, 27, 1)
"""Before: bars could be missed by reads of compressed chunks, or inserts into them end early."""
SOUND = (2, 29, 2)
"""Before: counts of different values could miss rows that were not compressed yet."""

_HYPERTABLES = Path(__file__).parent / "schema" / "timescale" / "hypertables.sql"
_FOUND = """
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
       (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'),
       current_setting('shared_preload_libraries') LIKE '%timescaledb%',
       candle_storage()
"""
_FILLED = "SELECT EXISTS (SELECT FROM candles_intraday) OR EXISTS (SELECT FROM candles_daily)"


def adopt(cursor: Any, use: Use) -> str:
    """Take over the extension when the server has it and `use` allows; `native` or the version in use.

    To be called under the lock of the migrations, in autocommit mode. Raises `StorageError` when the tables
    are hypertables of a version that loses bars, and when taking over fails, which changes nothing.
    """
    cursor.execute(_FOUND)
    installed, available, loaded, storage = cursor.fetchone()
    if storage == "timescale":
        _require_sound(installed)
        return str(installed)
    version = installed or available
    if version is None or use == "off":
        return "native"
    if not _usable(version, loaded=loaded):
        return "native"
    cursor.execute(_FILLED)
    if cursor.fetchone()[0] and use != "convert":
        log.warning(
            "timescaledb_unused",
            version=version,
            reason="bars are stored in native partitions already; set TIMESCALE=convert to move them, which "
            "keeps the database busy until all are copied, or TIMESCALE=off to keep them",
        )
        return "native"
    _convert(cursor)
    return str(version)


def number(version: str) -> tuple[int, ...]:
    """`2.29.2-dev` -> (2, 29, 2)."""
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def _usable(version: str, *, loaded: bool) -> bool:
    if not loaded:
        reason = "shared_preload_libraries lacks timescaledb; add it and restart the server"
    elif number(version) < OLDEST:
        reason = f"it loses bars; update it to {_dotted(SOUND)} or newer"
    else:
        _warn(version)
        return True
    log.warning("timescaledb_unused", version=version, reason=reason)
    return False


def _require_sound(version: str) -> None:
    if number(version) < OLDEST:
        raise StorageError(
            f"TimescaleDB {version} loses bars of compressed chunks. Update it: install {_dotted(SOUND)} or "
            "newer, then `ALTER EXTENSION timescaledb UPDATE` in psql -X."
        )
    _warn(version)


def _warn(version: str) -> None:
    if number(version) < SOUND:
        reason = f"counts of different values may miss rows; update it to {_dotted(SOUND)} or newer"
        log.warning("timescaledb_old", version=version, reason=reason)


def _convert(cursor: Any) -> None:
    try:
        cursor.execute("SET client_min_messages = error")
        cursor.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE candles_intraday, candles_daily IN ACCESS EXCLUSIVE MODE")
        cursor.execute(_HYPERTABLES.read_text())
        cursor.execute("COMMIT")
    except psycopg2.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise StorageError(
            f"The candle tables could not be made hypertables, nothing was changed: {reason}. "
            "TIMESCALE=off keeps native partitions."
        ) from error


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
