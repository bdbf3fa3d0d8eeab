"""Several collectors of the same symbols at once, some of them frozen: nothing lost, nothing twice."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.market.intervals import Interval
from cluster.providers.gateway import GatewayPolicy
from tests.chaos import fleet as fleets
from tests.chaos.checker import check
from tests.chaos.collector_process import CollectorOrders, collect
from tests.chaos.fleet import Fleet, between_the_ends, fleet, query, reading, stored, until

pytestmark = [pytest.mark.chaos, pytest.mark.postgres, pytest.mark.slow]

M1 = Interval.M1
SEED = 7
SYMBOLS = [f"SYN{number:04d}" for number in range(1, 41)]
NOON = datetime(2024, 3, 4, 12, 0, 1, tzinfo=UTC)
ROUNDS = 3
_WRITING = """
SELECT pid FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE datname = current_database() AND state = $1 AND wait_event = 'ClientRead' AND backend_xid IS NOT NULL
  AND locktype = 'advisory' LIMIT 1
"""
_NEWEST = "SELECT symbol, max(ts) AS newest FROM candles_intraday GROUP BY symbol"


@pytest.fixture
def orders(database_url: str, tmp_path: Path) -> CollectorOrders:
    providers = {"synthetic": {"seed": SEED, "latency_s": 0.02}}
    policy = GatewayPolicy(timeout_s=60.0)
    folder = fleets.log_folder(tmp_path)
    return CollectorOrders("", database_url, folder, providers, policy, commit_pause_s=0.05)


def set_clock(collectors: Fleet, moment: datetime) -> None:
    """The clocks of all collectors show `moment`, and go on from there."""
    collectors.clock_offset_s.value = (moment - datetime.now(UTC)).total_seconds()


async def until_collected(dsn: str, moment: datetime) -> None:
    """Until all symbols have the same newest bar, and that had closed at `moment` or later."""

    async def level() -> bool:
        rows = await query(dsn, _NEWEST)
        newest = {row["newest"] for row in rows}
        closed = moment.replace(second=0) - timedelta(minutes=1)
        return len(rows) == len(SYMBOLS) and len(newest) == 1 and newest.pop() >= closed

    await until(level)


async def test_two_collectors_of_one_shard_one_of_them_frozen_again_and_again_store_each_bar_once(
    orders: CollectorOrders, rng: random.Random
) -> None:
    await fleets.know(orders.dsn, SYMBOLS)
    moment = NOON
    with fleet(orders, collect) as collectors:
        set_clock(collectors, moment)
        collectors.start("old", "new", idle_s=1.0, lock_timeout_s=1.0, frozen_after_s=2.0)
        await until_collected(orders.dsn, moment)
        async with reading(orders.dsn, orders.folder, SYMBOLS[:3]):
            for _ in range(ROUNDS):
                name = rng.choice(collectors.names())
                moment += timedelta(minutes=3)
                set_clock(collectors, moment)
                await until_writing(collectors, name, moment)
                collectors.signal(name, signal.SIGSTOP)
                moment += timedelta(minutes=3)
                set_clock(collectors, moment)
                await until_collected(orders.dsn, moment)
                collectors.signal(name, signal.SIGCONT)
        await until_both_write(collectors, moment)
        assert [collectors.drain(name) for name in collectors.names()] == [0, 0]
        events = collectors.history()
    rows = await stored(orders.dsn)
    assert check(events, rows, await between_the_ends(SEED, rows)) == []
    counted = [int(path.read_text()) for path in sorted(orders.folder.glob("*.counted"))]
    assert min(counted) > 0
    assert sum(counted) == len(rows) + sum(row.revision for row in rows)  # each change was counted by one
    assert {row.revision for row in rows} <= {0, 1}  # a minute that ran became final once


async def until_writing(collectors: Fleet, name: str, moment: datetime) -> None:
    """Until a collector is in the middle of a write, or the other has done everything."""

    async def writing() -> bool:
        if fleets.open_writes(collectors, name):
            return True
        rows = await query(collectors.orders.dsn, _NEWEST)
        return {row["newest"] for row in rows} == {moment.replace(second=0) - timedelta(minutes=1)}

    await until(writing)


async def until_both_write(collectors: Fleet, moment: datetime) -> None:
    """Move the clocks on until each of the collectors has stored something more."""
    for name in collectors.names():
        before = fleets.acknowledged(collectors.history(), name)

        async def one_more(name: str = name, before: int = before) -> bool:
            nonlocal moment
            moment += timedelta(minutes=1)
            set_clock(collectors, moment)
            await until_collected(collectors.orders.dsn, moment)
            return fleets.acknowledged(collectors.history(), name) > before

        await until(one_more)


async def until_one_more(collectors: Fleet, name: str, before: int) -> None:
    """Until more than `before` writes of a collector were acknowledged."""

    async def one_more() -> bool:
        return fleets.acknowledged(collectors.history(), name) > before

    await until(one_more)


@pytest.mark.parametrize(
    ("state", "pauses", "lock_timeout_s"),
    [("idle in transaction", {"commit_pause_s": 0.5}, 30.0), ("active", {"copy_pause_s": 0.4}, 0.5)],
    ids=["before its commit", "inside of a COPY"],
)
async def test_a_collector_frozen_with_the_locks_of_its_symbols_holds_up_nobody_for_long(
    orders: CollectorOrders, state: str, pauses: dict[str, float], lock_timeout_s: float
) -> None:
    hour = NOON - timedelta(hours=1, seconds=1)
    jobs = await fleets.enqueue(orders.dsn, SYMBOLS[:4], M1, hour, hour + timedelta(hours=1), bars=60)
    # The server ends a transaction that pauses for 1 s; who waits in vain, a statement that does for 2 s.
    patient = replace(orders, lock_timeout_s=lock_timeout_s, frozen_after_s=2.0, lease_s=30.0)
    with fleet(orders, collect) as collectors, fleet(patient) as workers:
        set_clock(collectors, NOON)
        collectors.start("frozen", batch=4, idle_s=1.0, **pauses)
        session = await freeze(collectors, "frozen", state)
        begun = fleets.open_writes(collectors, "frozen")
        workers.start("worker")
        await fleets.until_done(orders.dsn, jobs)
        assert await query(orders.dsn, "SELECT FROM pg_stat_activity WHERE pid = $1", session) == []
        before = fleets.acknowledged(collectors.history(), "frozen")
        collectors.signal("frozen", signal.SIGCONT)
        await until_one_more(collectors, "frozen", before)
        assert collectors.drain("frozen") == 0
        events = collectors.history()
    assert {event.kind for event in events if event.op in begun} == {"invoke", "info"}
    rows = await stored(orders.dsn)
    assert check(events, rows, await between_the_ends(SEED, rows)) == []


async def freeze(collectors: Fleet, name: str, state: str) -> int:
    """Stop a collector in the middle of a transaction that has new bars; the process of its session."""
    moment = NOON
    held: list[int] = []

    async def is_frozen() -> bool:
        nonlocal moment
        if not await query(collectors.orders.dsn, _WRITING, state):
            moment += timedelta(seconds=1)
            set_clock(collectors, moment)  # there is always something to be collected
            return False
        collectors.signal(name, signal.SIGSTOP)
        held.extend(row["pid"] for row in await query(collectors.orders.dsn, _WRITING, state))
        if not held:
            collectors.signal(name, signal.SIGCONT)
        return bool(held)

    await until(is_frozen)
    return held[0]
