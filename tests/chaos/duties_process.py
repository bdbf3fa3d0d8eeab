"""The duties that find gaps and keep the storage, in a process without Ray and in a great hurry."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from multiprocessing.sharedctypes import Synchronized

from cluster import logs, metrics
from cluster.backfill.gap_scan import WatchRules
from cluster.backfill.gap_watch import GapWatch
from cluster.duties.duty import Duty
from cluster.duties.loop import Duties
from cluster.market.intervals import Interval
from cluster.storage import upkeep
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from cluster.storage.upkeep import Keeping
from tests.chaos.worker_process import Orders, SkewedClock

PERIOD_S = 0.1
IDLE_S = 1.0
"""After which the server ends the session of a process that says nothing, and frees what that has locked."""


def do_duties(orders: Orders, clock_offset_s: Synchronized[float]) -> None:
    """Do them until SIGTERM, then leave behind how many gaps were counted."""
    asyncio.run(_do(orders, SkewedClock(clock_offset_s)))


async def _do(orders: Orders, clock: SkewedClock) -> None:
    logs.configure("error")
    database = await Database.open(
        orders.dsn,
        idle_in_transaction_timeout_s=IDLE_S,
        idle_session_timeout_s=IDLE_S,
        frozen_after_s=2 * IDLE_S,
    )
    rules = WatchRules({"T1": [Interval.M1]})
    watch = GapWatch(database, BackfillQueue(database), clock, rules)
    duties = Duties(
        [
            Duty("gaps", PERIOD_S, watch.run),
            Duty("rollups", PERIOD_S, partial(upkeep.roll, database, clock)),
            Duty("frozen_sessions", PERIOD_S, database.end_frozen),
            Duty("storage", PERIOD_S, partial(upkeep.keep, database, clock, Keeping(minutes_days=3_650))),
        ],
        clock,
        first_s=0.0,
    )
    life = asyncio.create_task(duties.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, life.cancel)
    await asyncio.wait([life])
    counted = metrics.REGISTRY.get_sample_value("gaps_found_total", {"interval": "1m"}) or 0
    (orders.folder / f"{orders.name}.counted").write_text(str(int(counted)))
