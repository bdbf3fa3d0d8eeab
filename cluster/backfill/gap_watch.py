"""Finds the bars that should be stored and are not, remembers them, and has them fetched.

A scan looks at what is new since the last one: bars that have closed since, ranges in which bars were
deleted or whose calendar has changed, gaps in which a bar has arrived. Once in a while all is compared.
One scan of an interval runs at a time, however many clusters share the database.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection

from cluster.backfill.gap_offers import Offers
from cluster.backfill.gap_scan import Scan, Scanned, WatchRules
from cluster.clock import Clock
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.storage import calendar_overrides, gap_state
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database


async def _nothing_told() -> Offers:
    return Offers()


class GapWatch:
    """The periodic search for gaps. `offers` tells what the providers can give."""

    def __init__(
        self,
        database: Database,
        queue: BackfillQueue,
        clock: Clock,
        rules: WatchRules,
        offers: Callable[[], Awaitable[Offers]] = _nothing_told,
    ) -> None:
        self._database, self._queue, self._clock = database, queue, clock
        self._rules, self._offers = rules, offers

    async def run(self) -> None:
        """Scan every watched interval."""
        tiers: dict[Interval, list[Tier]] = defaultdict(list)
        for tier, intervals in self._rules.collection.items():
            for interval in intervals:
                tiers[interval].append(tier)
        async with self._database.transaction() as connection:
            await gap_state.forget_others(connection, list(tiers))
        offers = await self._offers()
        for interval, of in tiers.items():
            await self.scan(interval, of, offers)

    async def scan(self, interval: Interval, tiers: Collection[Tier], offers: Offers) -> Scanned | None:
        """Scan one interval of the symbols of `tiers`; `None` when somebody else does it at this moment."""
        await calendar_overrides.refresh(self._database)
        async with self._database.connection() as connection:
            if not await gap_state.try_lock(connection, interval):
                return None
            try:
                return await Scan(
                    self._database,
                    self._queue,
                    self._clock.now(),
                    self._rules,
                    interval,
                    tiers,
                    offers,
                    connection,
                ).run()
            finally:
                await gap_state.unlock(connection, interval)
