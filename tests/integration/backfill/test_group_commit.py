"""Many jobs in one transaction: each meets only its own end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from cluster.backfill.group_commit import Filled, GroupCommit
from cluster.clock import SystemClock
from cluster.errors import BadBars, LeaseLost
from cluster.market import bars
from cluster.market.instants import to_instant
from cluster.market.intervals import Interval
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Connection, Database
from cluster.storage.known_gaps import Hole

pytestmark = pytest.mark.postgres

M1 = Interval.M1
T = datetime(2025, 10, 8, 14, tzinfo=UTC)
SYMBOLS = ("A", "B", "C", "D")


class Counted(BackfillQueue):
    """Counts its transactions."""

    transactions = 0

    @asynccontextmanager
    async def fenced_many(self, leases: Collection[Lease]) -> AsyncIterator[tuple[Connection, set[int]]]:
        self.transactions += 1
        async with super().fenced_many(leases) as held:
            yield held


def table(symbol: str, minutes: int, *, close: float = 11.0, first: int = 0) -> pa.Table:
    """A close above 12 is above the high, which the database refuses."""
    ts = to_instant(T) + np.arange(first, first + minutes).astype("timedelta64[m]")
    flat = np.full(minutes, 11.0)
    return bars.from_columns(
        symbol, M1, ts, flat, flat + 1, flat - 1, np.full(minutes, close), flat, source="test"
    )


async def leased(queue: BackfillQueue) -> list[Lease]:
    for symbol in SYMBOLS:
        await queue.enqueue(symbol, M1, T, T + timedelta(minutes=10))
    return await queue.claim("w", 8)


async def stored(database: Database) -> dict[str, int]:
    rows = await database.pool.fetch("SELECT symbol, count(*) AS n FROM candles_intraday GROUP BY symbol")
    return {row["symbol"]: row["n"] for row in rows}


async def test_jobs_that_are_ready_together_share_a_transaction_and_get_their_own_counts(
    database: Database,
) -> None:
    queue = Counted(database)
    leases = await leased(queue)
    commits = GroupCommit(queue, SystemClock())
    filled = [Filled(lease, "test", table(lease.symbol, n), ()) for n, lease in enumerate(leases)]
    assert await asyncio.gather(*(commits.store(each) for each in filled)) == [0, 1, 2, 3]
    assert queue.transactions == 1
    assert await stored(database) == {"B": 1, "C": 2, "D": 3}
    assert {job.state for job in (await queue.get_many([lease.id for lease in leases])).values()} == {"done"}


async def test_a_job_that_lost_its_lease_writes_nothing_and_the_others_do(database: Database) -> None:
    queue = Counted(database)
    leases = await leased(queue)
    lost = leases[1]
    await database.pool.execute("UPDATE backfill_jobs SET lease_until = now() WHERE id = $1", lost.id)
    commits = GroupCommit(queue, SystemClock())
    hole = Hole(Span(T, T + timedelta(minutes=1)), "no_data")
    ends = await asyncio.gather(
        *(commits.store(Filled(lease, "test", table(lease.symbol, 2), [hole])) for lease in leases),
        return_exceptions=True,
    )
    assert [type(end) if isinstance(end, Exception) else end for end in ends] == [2, LeaseLost, 2, 2]
    assert await stored(database) == {"A": 2, "C": 2, "D": 2}
    known = await database.pool.fetch("SELECT symbol FROM known_gaps ORDER BY symbol")
    assert [row["symbol"] for row in known] == ["A", "C", "D"]


async def test_a_job_whose_bars_are_refused_fails_alone(database: Database) -> None:
    queue = Counted(database)
    leases = await leased(queue)
    commits = GroupCommit(queue, SystemClock())
    filled = [
        Filled(lease, "test", table(lease.symbol, 2, close=99.0 if lease.symbol == "C" else 11.0), ())
        for lease in leases
    ]
    ends = await asyncio.gather(*(commits.store(each) for each in filled), return_exceptions=True)
    assert [type(end) if isinstance(end, Exception) else end for end in ends] == [2, 2, BadBars, 2]
    assert await stored(database) == {"A": 2, "B": 2, "D": 2}


async def test_two_jobs_of_one_symbol_do_not_share_because_their_rows_are_counted_by_it(
    database: Database,
) -> None:
    queue = Counted(database, longest_bars=10)
    await queue.enqueue("A", M1, T, T + timedelta(minutes=20))
    first, second = await queue.claim("w", 2)
    commits = GroupCommit(queue, SystemClock())
    counts = await asyncio.gather(
        commits.store(Filled(first, "test", table("A", 4), ())),
        commits.store(Filled(second, "test", table("A", 3, first=10), ())),
    )
    assert list(counts) == [4, 3]
    assert queue.transactions == 2


async def test_who_stops_waiting_before_its_turn_is_not_stored(database: Database) -> None:
    queue = Counted(database)
    leases = await leased(queue)
    commits = GroupCommit(queue, SystemClock())
    waiting = [
        asyncio.create_task(commits.store(Filled(one, "test", table(one.symbol, 2), ()))) for one in leases
    ]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting)
    assert await stored(database) == {"B": 2, "C": 2, "D": 2}
