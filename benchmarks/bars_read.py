"""Reading a million bars into Arrow against `pandas.read_sql`: `python -m benchmarks.bars_read`.

Both read the same 14 columns of the same 100 symbols in the same order from the same partitioned table. The
peer runs on SQLAlchemy with psycopg2.
"""

from __future__ import annotations

import asyncio

import pandas as pd
import sqlalchemy

from benchmarks.million_bars import (
    BARS,
    SYMBOLS,
    Outcome,
    arriving,
    private_server,
    report_rates,
    seconds,
    write_ours,
)
from cluster.market.intervals import Interval
from cluster.storage import bars
from cluster.storage.database import Database

ROUNDS = 5
GOAL = 8.0
_QUERY = sqlalchemy.text(
    f"SELECT {', '.join(bars.STORED_BAR_SCHEMA.names)} FROM candles_intraday "
    "WHERE symbol = ANY(:symbols) AND interval = '1m' ORDER BY symbol, ts"
)


async def read_ours(database: Database) -> None:
    """All bars as one Arrow table."""
    table = await bars.read_many(database, SYMBOLS, Interval.M1)
    if table.num_rows != BARS:
        raise SystemExit(f"{table.num_rows} bars read, expected {BARS}")


def read_pandas(engine: sqlalchemy.Engine) -> None:
    """All bars as one data frame."""
    with engine.connect() as connection:
        frame = pd.read_sql(_QUERY, connection, params={"symbols": SYMBOLS})
    if len(frame) != BARS:
        raise SystemExit(f"{len(frame)} bars read, expected {BARS}")


async def measure() -> Outcome:
    """Alternate the sides on one table that is in memory."""
    ours, theirs = [], []
    async with private_server() as database:
        await write_ours(database, arriving())
        await database.pool.execute("VACUUM ANALYZE candles_intraday")
        engine = sqlalchemy.create_engine(database.dsn.replace("postgresql:", "postgresql+psycopg2:", 1))
        await read_ours(database)  # both sides find the table in memory
        for _ in range(ROUNDS):
            theirs.append(BARS / await seconds(lambda: asyncio.to_thread(read_pandas, engine)))
            ours.append(BARS / await seconds(lambda: read_ours(database)))
        engine.dispose()
    note = (
        "peer: pandas.read_sql (SQLAlchemy, psycopg2) of the same 14 columns; "
        f"medians of {ROUNDS} alternating rounds"
    )
    return Outcome("bars_read", ours, theirs, GOAL, note)


if __name__ == "__main__":
    report_rates(measure)
