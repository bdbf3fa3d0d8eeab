"""A backfill worker in a process without Ray: the parts of the backfill actor, and a log of what it writes.

What it logs it knows as any client does: that it is about to commit, that the commit was acknowledged, that
the transaction was rolled back for certain, or nothing for certain.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from cluster import logs
from cluster.backfill.actor import UniverseCalendar
from cluster.backfill.pool import Pool
from cluster.backfill.route import Route
from cluster.backfill.worker import Worker
from cluster.clock import SystemClock
from cluster.errors import StorageError
from cluster.market.symbols import Tier
from cluster.providers.gateway import GatewayPolicy
from cluster.providers.gateway_actor import GatewayActor
from cluster.providers.router import Router
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Connection, Database
from tests.chaos.history import Kind, Log

RECONNECT_S = 0.2


@dataclass(frozen=True)
class Orders:
    """What a worker process is told."""

    name: str
    dsn: str
    folder: Path
    """Of the operation log."""
    providers: Mapping[str, Mapping[str, object]]
    """Options by name, as in the settings."""
    policy: GatewayPolicy = field(default_factory=GatewayPolicy)
    shared_budget_url: str | None = None
    limits: Mapping[Tier, int] = field(default_factory=dict)
    concurrency: int = 4
    lease_s: float = 2.0
    poll_s: float = 0.1
    call_timeout_s: float = 5.0
    is_deluded: bool = False
    """Whether it holds all its leases for renewed, and never asks."""
    lock_timeout_s: float = 30.0
    frozen_after_s: float = 70.0
    commit_pause_s: float = 0.0
    """How long a finished transaction waits before its commit, to be struck there."""


class SkewedClock(SystemClock):
    """A machine's clock that is wrong by what another process sets at any time; monotonic time is not."""

    def __init__(self, offset_s: Synchronized[float]) -> None:
        self._offset_s = offset_s

    def now(self) -> datetime:
        """The wrong time."""
        return super().now() + timedelta(seconds=self._offset_s.value)


class LoggedQueue(BackfillQueue):
    """The queue; what a job writes in the transaction that finishes it is an operation of the log."""

    def __init__(self, database: Database, orders: Orders) -> None:
        super().__init__(database, lease_s=orders.lease_s, limits=orders.limits)
        self._log = Log(orders.folder, orders.name)
        self._commit_pause_s, self._is_deluded = orders.commit_pause_s, orders.is_deluded
        self._completing: dict[Connection, list[Lease]] = {}

    async def beat(self, leases: Collection[Lease]) -> set[int]:
        """See `BackfillQueue.beat`."""
        return {lease.id for lease in leases} if self._is_deluded else await super().beat(leases)

    @asynccontextmanager
    async def fenced_many(self, leases: Collection[Lease]) -> AsyncIterator[tuple[Connection, set[int]]]:
        """See `BackfillQueue.fenced_many`."""
        writes: list[Lease] = []
        left_well = False
        try:
            async with super().fenced_many(leases) as (connection, held):
                self._completing[connection] = writes
                try:
                    yield connection, held
                finally:
                    del self._completing[connection]
                left_well = True
        except BaseException:
            self._tell("info" if left_well else "fail", writes)
            raise
        self._tell("ok", writes)

    async def complete_many(
        self, done: Sequence[tuple[Lease, int]], connection: Connection | None = None
    ) -> set[int]:
        """See `BackfillQueue.complete_many`; told before the commit: what can be seen has been told."""
        assert connection is not None
        leases = [lease for lease, _ in done]
        self._tell("invoke", leases)
        self._completing[connection].extend(leases)
        completed = await super().complete_many(done, connection)
        await asyncio.sleep(self._commit_pause_s)
        return completed

    def _tell(self, kind: Kind, leases: Sequence[Lease]) -> None:
        for lease in leases:
            start, end = int(lease.start.timestamp()), int(lease.end.timestamp())
            where = (lease.symbol, str(lease.interval), start, end)
            self._log.tell(kind, str(lease.token), "write", where, effect=f"job {lease.id}")


def work(orders: Orders, clock_offset_s: Synchronized[float]) -> None:
    """Claim and work until SIGTERM; what a process of its own runs."""
    asyncio.run(_work(orders, SkewedClock(clock_offset_s)))


async def _work(orders: Orders, clock: SkewedClock) -> None:
    logs.configure("error")
    database = await _connected(orders)
    queue = LoggedQueue(database, orders)
    gateways = {
        name: GatewayActor(name, options, orders.policy, orders.shared_budget_url)
        for name, options in orders.providers.items()
    }
    route = Route(database, Router(gateways, clock))
    worker = Worker(queue, gateways, UniverseCalendar(database), clock, route)
    pool = Pool(
        orders.name, queue, worker.run, clock,
        batch=orders.concurrency, concurrency=orders.concurrency, poll_s=orders.poll_s,
        call_timeout_s=orders.call_timeout_s,
    )  # fmt: skip
    draining: list[asyncio.Task[None]] = []
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: draining.append(asyncio.ensure_future(pool.drain(grace_s=5.0)))
    )
    await pool.run()


async def _connected(orders: Orders) -> Database:
    while True:
        try:
            return await Database.open(
                orders.dsn,
                max_size=orders.concurrency + 2,
                lock_timeout_s=orders.lock_timeout_s,
                frozen_after_s=orders.frozen_after_s,
            )
        except StorageError:
            await asyncio.sleep(RECONNECT_S)
