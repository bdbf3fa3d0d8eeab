"""Ray shell around a backfill pool: one detached actor a worker, which starts to work when it is made.

Its memory is worth nothing: killed at any moment, Ray starts it again and the queue hands the jobs out anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import ray
from ray.actor import ActorHandle

from cluster import detached, logs
from cluster.backfill.pool import Pool, PoolStats
from cluster.backfill.route import Route
from cluster.backfill.worker import Worker
from cluster.clock import SystemClock
from cluster.market import calendars
from cluster.market.instants import Instants
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.providers import gateway_actor
from cluster.providers.lazy_gateway import LazyGateway
from cluster.providers.router import Router, Rule
from cluster.storage import calendar_overrides, universe
from cluster.storage.backfill_bell import Listener
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database, opened_at_last

log = logs.get(__name__)

NAMESPACE = gateway_actor.NAMESPACE
_RENEWAL_GRACE_S = 30.0
_CONNECTIONS = 8  # jobs use them for moments: one stores for all, the others claim, beat and look things up


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a backfill worker needs to know."""

    database_url: str = field(repr=False)
    providers: tuple[str, ...]
    """Those that a job is routed to when it names none; of equals the first."""
    source_rule: Rule = "announce"
    limits: Mapping[Tier, int] = field(default_factory=dict)
    """Most running jobs a tier, over all workers."""
    provider_limits: Mapping[str, int] = field(default_factory=dict)
    """Most running jobs a provider, over all workers."""
    accounts: Mapping[str, str] = field(default_factory=dict)
    """By provider, as `plans.scope` has it."""
    batch: int = 8
    concurrency: int = 16
    listens: bool = True
    """Whether to be woken when jobs are queued, instead of looking now and then only."""
    lease_s: float = 60.0
    poll_s: float = 1.0
    log_level: str = "info"


class UniverseCalendar:
    """Which bars should exist, by the calendar that the symbol has in the universe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(
        self, symbol: str, interval: Interval, start: datetime, end: datetime
    ) -> Instants | None:
        """Opens of the expected bars in [start, end); `None` when the universe does not have the symbol."""
        instrument = await universe.get(self._database, symbol)
        if instrument is None:
            return None
        await calendar_overrides.refresh(self._database)
        return await asyncio.to_thread(calendars.expected_opens, instrument.calendar, interval, start, end)


class BackfillActor:
    """Works off the queue from its construction until `drain`; to be made by `start`."""

    def __init__(self, name: str, options: WorkerOptions, namespace: str) -> None:
        self._options = options = detached.kept(options)
        logs.configure(options.log_level)
        self._name = name
        self._namespace = namespace
        self._pool: Pool | None = None
        self._draining = False
        self._renewal: asyncio.Task[None] | None = None
        self._life = detached.live(asyncio.get_running_loop().create_task(self._live(), name=name))

    async def stats(self) -> PoolStats | None:
        """What the worker has done since it last began; `None` while it waits for the database."""
        return self._pool.stats() if self._pool else None

    async def reload(self, options: WorkerOptions) -> None:
        """Begin anew by `options` when the running jobs are over; does not wait for that."""
        if options == self._options:
            return
        await detached.keep(options)
        self._options = options
        logs.configure(options.log_level)
        if self._pool is not None and not self._draining:
            self._renewal = asyncio.create_task(self._pool.drain(_RENEWAL_GRACE_S))

    async def drain(self, grace_s: float = 30.0) -> None:
        """Take no more jobs, finish or give back those that run; returns when nothing is left."""
        self._draining = True
        if self._pool is None:
            self._life.cancel()
        else:
            await self._pool.drain(grace_s)
        await asyncio.wait([self._life])

    async def _live(self) -> None:
        while not self._draining:
            database = await self._connected()
            try:
                self._pool = pool = self._pool_on(database, self._options)
                log.info("worker_started", worker=self._name, pid=os.getpid())
                await self._work(pool, self._options)
            finally:
                await database.close()

    async def _work(self, pool: Pool, options: WorkerOptions) -> None:
        """Until the pool is drained."""
        listener = asyncio.create_task(
            Listener(options.database_url, pool.wake).run() if options.listens else asyncio.sleep(0)
        )
        try:
            await pool.run()
        finally:
            listener.cancel()

    async def _connected(self) -> Database:
        return await opened_at_last(
            lambda: Database.open(self._options.database_url, max_size=_CONNECTIONS, reset_sessions=False)
        )

    def _pool_on(self, database: Database, options: WorkerOptions) -> Pool:
        queue = BackfillQueue(
            database,
            lease_s=options.lease_s,
            limits=options.limits,
            provider_limits=options.provider_limits,
            routes=options.providers,
            accounts=options.accounts,
        )
        clock = SystemClock()
        sources = {name: LazyGateway(name, self._namespace) for name in options.providers}
        route = Route(database, Router(sources, clock, options.source_rule))
        worker = Worker(queue, sources, UniverseCalendar(database), clock, route)
        return Pool(
            self._name,
            queue,
            worker.run,
            clock,
            batch=options.batch,
            concurrency=options.concurrency,
            poll_s=options.poll_s,
        )


def actor_name(index: int) -> str:
    """The name of a backfill actor within the namespace."""
    return f"backfill:{index}"


def start(
    index: int,
    options: WorkerOptions,
    *,
    env: Mapping[str, str] | None = None,
    namespace: str = NAMESPACE,
) -> ActorHandle[Any]:
    """Start backfill worker number `index`, or find the one that runs; needs a connection to Ray.

    `env` is the environment of the actor's process, such as `PROMETHEUS_MULTIPROC_DIR`.
    """
    name = actor_name(index)
    return detached.start(BackfillActor, name, (name, options, namespace), env=env, namespace=namespace)


def running(indices: Iterable[int], *, namespace: str = NAMESPACE) -> list[ActorHandle[Any]]:
    """The workers of these numbers that there are; needs a connection to Ray."""
    found = []
    for index in indices:
        with suppress(ValueError):
            found.append(ray.get_actor(actor_name(index), namespace=namespace))
    return found


async def drain(workers: Sequence[ActorHandle[Any]], grace_s: float = 30.0, timeout_s: float = 60.0) -> None:
    """Drain all workers at once; what does not answer within `timeout_s` is left to its leases."""
    ends = await asyncio.gather(
        *(asyncio.wait_for(worker.drain.remote(grace_s), timeout_s) for worker in workers),
        return_exceptions=True,
    )
    for worker, end in zip(workers, ends, strict=True):
        if isinstance(end, BaseException):
            log.warning("drain_failed", worker=str(worker), reason=repr(end))
