"""Writing a million new bars against `executemany`: `python -m benchmarks.bars_write_executemany`.

The peer is what one writes first with asyncpg: one upsert that updates what differs, for a million tuples
that were made beforehand, into a table with the same columns and primary key, in one transaction.
"""

from __future__ import annotations

import pyarrow as pa

from benchmarks.million_bars import (
    BARS,
    Outcome,
    arriving,
    empty,
    private_server,
    report_rates,
    seconds,
    write_ours,
)
from cluster.market.bars import BAR_SCHEMA
from cluster.storage.database import Database

ROUNDS = 3
GOAL = 1.5
_NAMES = BAR_SCHEMA.names
_VALUES = ("open", "high", "low", "close", "volume", "trade_count", "is_final")
_UPSERT = f"""
INSERT INTO peer AS stored ({", ".join(_NAMES)})
VALUES ({", ".join(f"${place}" for place in range(1, len(_NAMES) + 1))})
ON CONFLICT (symbol, interval, ts) DO UPDATE
SET {", ".join(f"{name} = excluded.{name}" for name in _VALUES)}, source = excluded.source,
    revision = stored.revision + 1, ingested_at = now()
WHERE ({", ".join(f"stored.{name}" for name in _VALUES)})
      IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in _VALUES)})
"""


def tuples(table: pa.Table) -> list[tuple[object, ...]]:
    """The rows as Python tuples."""
    return list(zip(*(table[name].to_pylist() for name in _NAMES), strict=True))


async def upsert(database: Database, rows: list[tuple[object, ...]]) -> None:
    """All rows in one transaction."""
    async with database.transaction() as connection:
        await connection.executemany(_UPSERT, rows)


async def measure() -> Outcome:
    """Alternate the sides, each time on empty tables."""
    table = arriving()
    rows = tuples(table)
    ours, theirs = [], []
    async with private_server() as database:
        for _ in range(ROUNDS):
            await empty(database)
            ours.append(BARS / await seconds(lambda: write_ours(database, table)))
            await empty(database)
            theirs.append(BARS / await seconds(lambda: upsert(database, rows)))
    note = f"peer: asyncpg executemany upsert of the same bars; medians of {ROUNDS} alternating rounds"
    return Outcome("bars_write_executemany", ours, theirs, GOAL, note)


if __name__ == "__main__":
    report_rates(measure)
