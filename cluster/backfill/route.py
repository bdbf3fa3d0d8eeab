"""Routes a job that names no provider, and keeps to the source that its session began with."""

from __future__ import annotations

import asyncio

import pyarrow as pa

from cluster.backfill.worker import Ask
from cluster.market.calendars import session_of
from cluster.providers.router import Router, Want
from cluster.storage import universe
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Database

_BEGAN_WITH = """
SELECT source FROM candles_intraday
WHERE symbol = $1 AND interval = $2 AND ts >= $3 AND ts < $4 ORDER BY ts LIMIT 1
"""


class Route:
    """A `Routing` by what the universe and the stored bars tell of a job."""

    def __init__(self, database: Database, router: Router) -> None:
        self._database, self._router = database, router

    async def __call__(self, lease: Lease, ask: Ask) -> tuple[str, pa.Table]:
        """The provider that gave the bars, and the bars; errors as those of `Router.fetch`."""
        return await self._router.fetch(await self._want(lease), ask)

    async def _want(self, lease: Lease) -> Want:
        asked = (lease.symbol, lease.interval, lease.start, lease.end)
        instrument = await universe.get(self._database, lease.symbol)
        if instrument is None:
            return Want(*asked)
        if lease.interval.is_daily:  # a session of its own each
            return Want(*asked, asset_type=instrument.asset_type)
        begins, ends = await asyncio.to_thread(session_of, instrument.calendar, lease.start)
        async with self._database.connection() as connection:
            began_with = await connection.fetchval(
                _BEGAN_WITH, lease.symbol, str(lease.interval), begins, max(ends, lease.end)
            )
        return Want(*asked, asset_type=instrument.asset_type, began_with=began_with)
