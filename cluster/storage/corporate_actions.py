"""Splits and dividends: stored as their sources tell them, applied to bars on the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa

from cluster.errors import InputError
from cluster.market.adjustments import Adjusted, CorporateAction, Kind, adjust, effective, steps
from cluster.storage.bars import WriteResult
from cluster.storage.database import Connection, Database

_WRITE = """
INSERT INTO corporate_actions AS stored (symbol, ex_date, kind, value, source)
SELECT * FROM unnest($1::text[], $2::date[], $3::text[], $4::float8[], $5::text[])
ON CONFLICT (symbol, ex_date, kind, source) DO UPDATE
SET value = excluded.value, revision = stored.revision + 1, updated_at = now()
WHERE stored.value <> excluded.value
RETURNING revision
"""
# Of a day and kind one source is taken: two of them must not be applied on top of each other.
_READ = """
SELECT DISTINCT ON (ex_date, kind) symbol, ex_date, kind, value, source FROM corporate_actions
WHERE symbol = $1
ORDER BY ex_date, kind, array_position($2::text[], source) NULLS LAST, source
"""
_DELETE = """
DELETE FROM corporate_actions WHERE symbol = $1 AND ex_date = $2 AND kind = $3 AND source = $4 RETURNING 1
"""
# An attempt that failed is repeated after a pause; of two who claim at once, one gets the symbol.
_CLAIM = """
INSERT INTO corporate_action_checks AS mine (symbol, asked_at)
SELECT u.symbol, now() FROM symbol_universe u LEFT JOIN corporate_action_checks c ON c.symbol = u.symbol
WHERE u.active AND u.asset_type IN ('equity', 'etf')
  AND (c.symbol IS NULL
       OR (c.asked_at < now() - $1::interval AND coalesce(c.checked_at < now() - $2::interval, true)))
ORDER BY u.tier, c.checked_at NULLS FIRST, u.symbol
LIMIT $3
ON CONFLICT (symbol) DO UPDATE SET asked_at = now() WHERE mine.asked_at < now() - $1::interval
RETURNING symbol, asked_at
"""
_CHECKED = """
UPDATE corporate_action_checks SET checked_at = now(), source = $3 WHERE symbol = $1 AND asked_at = $2
RETURNING 1
"""
_CLOSE_BEFORE = """
SELECT moment, coalesce(
    (SELECT close FROM candles_daily
     WHERE symbol = $1 AND interval = '1d' AND ts < moment AND ts >= moment - interval '10 days'
     ORDER BY ts DESC LIMIT 1),
    (SELECT close FROM candles_intraday
     WHERE symbol = $1 AND interval = $3 AND ts < moment AND ts >= moment - interval '10 days'
     ORDER BY ts DESC LIMIT 1)
) AS close
FROM unnest($2::timestamptz[]) AS moment
"""


class Claim(NamedTuple):
    """Who has it asks for the actions of a symbol."""

    symbol: str
    asked_at: datetime
    """By the database's clock."""


async def write(connection: Connection, actions: Sequence[CorporateAction]) -> WriteResult:
    """Store `actions`; one of the same symbol, ex-date, kind and source is revised when its value differs.

    Of several with one key the last wins. An action that a source no longer tells stays: see `delete`.
    """
    unique = {(a.symbol, a.ex_date, a.kind, a.source): a for a in actions}
    rows = [unique[key] for key in sorted(unique)]
    columns = [[getattr(row, name) for row in rows] for name in CorporateAction.__match_args__]
    changed = [row["revision"] for row in await connection.fetch(_WRITE, *columns)]
    inserted = changed.count(0)
    return WriteResult(inserted, len(changed) - inserted, len(rows) - len(changed))


async def claim(
    database: Database, count: int, *, every: timedelta = timedelta(days=1), pause: timedelta
) -> list[Claim]:
    """Up to `count` active shares and funds whose actions were not told for `every`, nor asked for `pause`.

    Of several who claim at once each gets others.
    """
    async with database.connection() as connection:
        return [Claim(*row) for row in await connection.fetch(_CLAIM, pause, every, count)]


async def store(
    database: Database, claimed: Claim, source: str | None, actions: Sequence[CorporateAction]
) -> WriteResult:
    """`write` all that `source` tells of a claimed symbol, and remember that; `None`: nobody has it.

    Nothing when somebody has claimed it since: what he is told is newer.
    """
    async with database.transaction() as connection:
        if await connection.fetchval(_CHECKED, *claimed, source) is None:
            return WriteResult()
        return await write(connection, actions)


async def read(database: Database, symbol: str, prefer: Sequence[str] = ()) -> list[CorporateAction]:
    """The actions of `symbol` by ex-date; of several sources the first of `prefer`, else by their name."""
    async with database.connection() as connection:
        rows = await connection.fetch(_READ, symbol, list(prefer))
    return [CorporateAction(**dict(row)) for row in rows]


async def delete(database: Database, symbol: str, ex_date: date, kind: Kind, source: str) -> bool:
    """Take out an action that was wrong; whether it was there."""
    async with database.connection() as connection:
        return await connection.fetchval(_DELETE, symbol, ex_date, kind, source) is not None


async def adjusted(
    database: Database,
    table: pa.Table,
    calendar: str,
    mode: Adjusted,
    *,
    as_of: datetime | None = None,
    prefer: Sequence[str] = (),
) -> pa.Table:
    """Raw bars of one symbol and interval (`bars.read`) as they look after the actions up to `as_of`, or now.

    Raises `InputError` for several symbols, and what `adjustments.steps` raises.
    """
    if mode is Adjusted.NONE or not table.num_rows:
        return table
    symbol, interval = _only(table, "symbol"), _only(table, "interval")
    actions = await read(database, symbol, prefer)
    first_bar: datetime = table["ts"][0].as_py()
    opens = effective(actions, calendar, first_bar, as_of or datetime.now(UTC))
    closes = await _closes_before(database, symbol, interval, opens)
    return adjust(table, steps(actions, opens, closes, mode))


async def _closes_before(
    database: Database, symbol: str, interval: str, opens: Mapping[date, datetime]
) -> dict[date, float]:
    async with database.connection() as connection:
        rows = await connection.fetch(_CLOSE_BEFORE, symbol, list(opens.values()), interval)
    closes = {row["moment"]: row["close"] for row in rows if row["close"] is not None}
    return {day: closes[at] for day, at in opens.items() if at in closes}


def _only(table: pa.Table, name: str) -> str:
    values = table[name].unique().to_pylist()
    if len(values) != 1:
        raise InputError(f"bars are adjusted by one {name} at a time; given {len(values)}")
    return str(values[0])
