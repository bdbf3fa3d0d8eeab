"""A replica whose database holds exactly the bars that a test gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa
from starlette.testclient import TestClient

from cluster.clock import FakeClock
from cluster.market.adjustments import CorporateAction
from cluster.market.bars import BAR_SCHEMA
from cluster.market.symbols import Instrument
from cluster.settings import Settings
from cluster.storage import bars, corporate_actions, universe
from cluster.storage.database import Database
from serve_apps.api import create_app

INSTRUMENTS = [
    Instrument("AAPL", "NASDAQ", "equity", "XNYS"),
    Instrument("BTC-USD", "BINANCE", "crypto", "24/7"),
]


@contextmanager
def replica(
    settings: Settings,
    dsn: str,
    now: datetime,
    *rows: dict[str, Any],
    actions: Sequence[CorporateAction] = (),
) -> Iterator[TestClient]:
    """A replica at `now` whose database has AAPL, BTC-USD the bars `rows` and `actions`."""
    asyncio.run(_fill(dsn, rows, actions))
    app = create_app(settings.model_copy(update={"database_url": dsn}), clock=FakeClock(now))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


async def _fill(dsn: str, rows: Sequence[dict[str, Any]], actions: Sequence[CorporateAction]) -> None:
    database = await Database.open(dsn, max_size=1)
    try:
        for each in INSTRUMENTS:
            await universe.add(database, each)
        async with database.transaction() as connection:
            await bars.write(connection, pa.Table.from_pylist(list(rows), schema=BAR_SCHEMA))
            await corporate_actions.write(connection, actions)
    finally:
        await database.close()
