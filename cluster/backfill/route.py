"""Routes a job that names no provider, and keeps to the sources that its sessions began with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from cluster.backfill.worker import Ask
from cluster.errors import Interrupted
from cluster.market import bars
from cluster.market.calendars import session_of, sessions
from cluster.market.instants import to_instant, to_moment
from cluster.providers.router import Router, Want, announce
from cluster.storage import universe
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Database

_BEGAN_WITH = """
SELECT begins, ends, source FROM unnest($3::timestamptz[], $4::timestamptz[]) AS session (begins, ends),
LATERAL (SELECT source FROM candles_intraday
         WHERE symbol = $1 AND interval = $2 AND ts >= begins AND ts < ends ORDER BY ts LIMIT 1) AS first
ORDER BY begins
"""


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that has bars, and who gave its first."""

    begins: datetime
    ends: datetime
    source: str


class Route:
    """A `Routing` by what the universe and the stored bars tell of a job."""

    def __init__(self, database: Database, router: Router) -> None:
        self._database, self._router = database, router

    async def __call__(self, lease: Lease, ask: Ask) -> tuple[str, pa.Table]:
        """The provider that gave the bars, and the bars; errors as those of `Router.fetch`.

        Bars of a later session that has to go on with another source are rejected: see `bars.reject`.
        """
        want, begun = await self._want(lease)
        try:
            provider, table = await self._router.fetch(want, ask)
        except Interrupted as part:
            raise Interrupted(self._kept(want, part.bars, begun), part.until, part.cause) from part
        return provider, self._kept(want, table, begun)

    def _kept(self, want: Want, table: pa.Table, begun: Sequence[Begun]) -> pa.Table:
        """What of `table` its sessions may go on with; the router has seen to the first."""
        reasons = np.full(table.num_rows, "", dtype=object)
        opens, sources = bars.opens(table), table["source"].to_numpy()
        for session in begun[1:]:
            inside = (opens >= to_instant(session.begins)) & (opens < to_instant(session.ends))
            for source in np.unique(sources[inside]).tolist():
                if self._router.is_bound(session.source, source):
                    reasons[inside & (sources == source)] = f"its session began with {session.source}"
                else:
                    announce(replace(want, start=session.begins, began_with=session.source), source)
        return bars.reject(table, reasons.tolist())

    async def _want(self, lease: Lease) -> tuple[Want, list[Begun]]:
        """What to ask for, and the sessions of the job that have begun already."""
        asked = (lease.symbol, lease.interval, lease.start, lease.end)
        instrument = await universe.get(self._database, lease.symbol)
        if instrument is None:
            return Want(*asked), []
        if lease.interval.is_daily:  # a session of its own each
            return Want(*asked, asset_type=instrument.asset_type), []
        spans = await asyncio.to_thread(_sessions, instrument.calendar, lease.start, lease.end)
        async with self._database.connection() as connection:
            rows = await connection.fetch(_BEGAN_WITH, lease.symbol, str(lease.interval), *spans)
        begun = [Begun(*row) for row in rows]
        began_with = begun[0].source if begun else None
        return Want(*asked, asset_type=instrument.asset_type, began_with=began_with), begun


def _sessions(calendar: str, start: datetime, end: datetime) -> tuple[list[datetime], list[datetime]]:
    """Begins and ends of the session that `start` lies in, and of those that open until `end`."""
    begins, ends = session_of(calendar, start)
    later = sessions(calendar, max(start, ends), max(start, ends, end))
    opens, closes = map(to_moment, later.opens), map(to_moment, later.closes)
    return [begins, *opens], [max(ends, start), *closes]
