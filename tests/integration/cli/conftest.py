"""A database with the S&P 500 of December 2018 but for two days, and the environment of commands on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.sample import SampleProvider
from cluster.storage import bars, universe
from cluster.storage.database import Database

LOST = ["2018-12-10T14:30", "2018-12-11T14:30"]

Work = Callable[[Database], Awaitable[object]]


def on(dsn: str, work: Work) -> None:
    """Do `work` on the database at `dsn`."""

    async def opened() -> None:
        database = await Database.open(dsn, max_size=2)
        try:
            await work(database)
        finally:
            await database.close()

    asyncio.run(opened())


@pytest.fixture(scope="session")
def december() -> pa.Table:
    """Its daily bars; New York was closed on the 5th and the 25th."""
    start, end = datetime(2018, 12, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)
    table = asyncio.run(SampleProvider().bars("SPX", Interval.D1, start, end))
    opens = table["ts"].to_numpy().astype("datetime64[m]")
    return table.filter(pa.array(~np.isin(opens, np.array(LOST, "datetime64[m]"))))


@pytest.fixture
def environment(database_url: str, december: pa.Table, tmp_path: Path) -> dict[str, str]:
    """Settings of a command; the universe has SPX with bars, and IXIC without."""

    async def fill(database: Database) -> None:
        names = {"SPX": "S&P 500", "IXIC": "NASDAQ Composite"}
        for symbol, name in names.items():
            await universe.add(database, Instrument(symbol, "INDEX", "index", "XNYS", name))
        async with database.transaction() as connection:
            await bars.write(connection, december)

    on(database_url, fill)
    return {"DATABASE_URL": database_url, "FINSIGHT_HOME": str(tmp_path)}
