"""The claim loop: keeps a number of jobs running, their leases alive, and nothing running without a lease."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from random import random, uniform
from typing import Protocol
from uuid import UUID

from cluster import logs, metrics
from cluster.backfill.lease import Tenure
from cluster.backfill.trouble import Trouble
from cluster.backfill.worker import Result
from cluster.clock import Clock
from cluster.errors import LeaseLost, StorageError
from cluster.storage.backfill_records import Lease

log = logs.get(__name__)

_GATHER_S = 0.02
"""What a free slot may wait for others to be claimed for with it."""
_SETTLED = ("done", "retried", "snoozed", "dead")
"""Results that the database has taken."""


class Claims(Protocol):
    """What the loop needs of the queue."""

    @property
    def lease_s(self) -> float:
        """Length of a lease."""
        ...

    async def claim(self, worker: str, limit: int) -> list[Lease]:
        """Up to `limit` jobs."""
        ...

    async def beat(self, leases: Collection[Lease]) -> set[int]:
        """Renew leases; returns the ids of the jobs still held."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give a job back."""
        ...

    async def excuse(self, leases: Collection[Lease], reason: str) -> list[Lease]:
        """Give jobs back that the database failed; returns those to ask for again."""
        ...


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool has done since it started; nothing of it survives the process."""

    name: str
    running: int
    claimed: int
    finished: dict[str, int]
    """Jobs by `tier/result`."""
    claim_age_s: float
    """Seconds since the database last answered a claim; much more than the poll pause means trouble."""
    draining: bool


@dataclass(slots=True)
class _Running:
    lease: Lease
    tenure: Tenure
    task: asyncio.Task[None]


class Pool:
    """Runs up to `concurrency` jobs at once, claimed in batches of at most `batch`.

    A job starts as soon as it is claimed, so no lease is spent waiting. Slots that become free are gathered
    for a moment, so that a claim is worth its way; `concurrency` of twice the `batch` keeps jobs running.
    With nothing to do the pool looks every `poll_s` seconds, give or take half, or when it is woken.

    A database in trouble is left alone for a while that grows, and then tried by one job. Jobs that it failed
    are given back without using an attempt as soon as it takes them.
    """

    def __init__(
        self,
        name: str,
        queue: Claims,
        work: Callable[[Lease], Awaitable[Result]],
        clock: Clock,
        *,
        batch: int = 8,
        concurrency: int = 8,
        poll_s: float = 1.0,
        call_timeout_s: float = 30.0,
    ) -> None:
        self._name = name
        self._queue = queue
        self._work = work
        self._clock = clock
        self._batch = batch
        self._concurrency = concurrency
        self._poll_s = poll_s
        self._call_timeout_s = call_timeout_s
        self._running: dict[int, _Running] = {}
        self._finished: Counter[str] = Counter()
        self._claimed = 0
        self._claimed_at_s = clock.monotonic_s()
        self._trouble = Trouble(poll_s)
        self._reason = ""
        self._owed: dict[UUID, Lease] = {}
        """Attempts that the database failed, to be undone when it is well again."""
        self._probe: int | None = None
        """The job that was claimed last."""
        self._beat_failed = False
        self._wake = asyncio.Event()
        self._drain_began = asyncio.Event()
        self._claims_ended = asyncio.Event()
        self._drained = asyncio.Event()

    async def run(self) -> None:
        """Claim and work until `drain` is through; to be called once."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_leases())
            group.create_task(self._claim_until_drained())

    def wake(self) -> None:
        """There may be jobs: look now."""
        self._wake.set()

    async def drain(self, grace_s: float) -> None:
        """Stop claiming, let the running jobs finish for `grace_s` seconds, then give the others back."""
        self._drain_began.set()
        self._wake.set()
        await self._claims_ended.wait()
        if tasks := [running.task for running in self._running.values()]:
            await asyncio.wait(tasks, timeout=grace_s)
        await asyncio.gather(*(self._give_back(running) for running in list(self._running.values())))
        with suppress(StorageError, TimeoutError):  # what is owed at the end uses an attempt
            async with asyncio.timeout(self._call_timeout_s):
                await self._excuse()
        self._drained.set()

    def stats(self) -> PoolStats:
        """The counts until now."""
        return PoolStats(
            name=self._name,
            running=len(self._running),
            claimed=self._claimed,
            finished=dict(self._finished),
            claim_age_s=self._clock.monotonic_s() - self._claimed_at_s,
            draining=self._draining,
        )

    async def _claim_until_drained(self) -> None:
        while not self._draining:
            if self._trouble.is_new:
                await _wait(self._drain_began, self._trouble.pause_s(random()))  # noqa: S311 - spreads workers
                self._trouble.paused()
                self._probe = None
                continue
            self._wake.clear()
            free = self._free()
            claimed = await self._claim(free) if free > 0 else 0
            if not (0 < free == claimed or self._draining):
                await _wait(self._wake, self._poll_s * uniform(0.5, 1.5))  # noqa: S311 - spreads polls
            if self._running and self._free() < self._batch:
                await _wait(self._drain_began, _GATHER_S)
        self._claims_ended.set()

    @property
    def _draining(self) -> bool:
        return self._drain_began.is_set()

    def _free(self) -> int:
        """How many jobs to claim; one at a time tries whether a database in trouble is well again."""
        free = min(self._batch, self._concurrency - len(self._running))
        if self._trouble.failures:
            return 0 if self._probe in self._running else min(free, 1)
        return free

    async def _claim(self, limit: int) -> int:
        sent_at_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self._call_timeout_s):
                await self._excuse()
                leases = await self._queue.claim(self._name, limit)
        except Exception as error:  # the loop outlives whatever the database does
            self._failed("claim_failed", error)
            return 0
        self._claimed_at_s = self._clock.monotonic_s()
        self._claimed += len(leases)
        for lease in leases:
            self._probe = lease.id
            if (lost := self._running.get(lease.id)) is not None:  # ours until we or the database stood still
                await self._drop(lost)
            self._start(lease, sent_at_s)
        return len(leases)

    def _start(self, lease: Lease, sent_at_s: float) -> None:
        task = asyncio.create_task(self._finish(lease), name=f"backfill job {lease.id}")
        self._running[lease.id] = _Running(lease, Tenure(sent_at_s, self._queue.lease_s), task)

    async def _finish(self, lease: Lease) -> None:
        try:
            result: str = await self._work(lease)
        except StorageError as error:
            self._owed[lease.token] = lease
            self._failed("job_postponed", error)
            result = "postponed"
        except Exception as error:  # not even settled: its lease runs out, another attempt follows
            log.error("job_unsettled", job=lease.id, reason=f"{type(error).__name__}: {error}")
            result = "unsettled"
        del self._running[lease.id]
        self._count(lease, result)

    async def _keep_leases(self) -> None:
        while not self._drained.is_set():
            await self._beat_when_due()
            await _wait(self._drained, self._queue.lease_s / 30)

    async def _beat_when_due(self) -> None:
        now_s = self._clock.monotonic_s()
        held = list(self._running.values())
        if any(now_s >= running.tenure.beat_at_s for running in held):
            await self._beat(held, now_s)
        for running in held:
            if self._clock.monotonic_s() >= running.tenure.stop_at_s:
                if self._beat_failed:  # the database did not hear of us: the job is not to blame
                    self._owed[running.lease.token] = running.lease
                await self._drop(running)

    async def _beat(self, held: list[_Running], sent_at_s: float) -> None:
        try:
            async with asyncio.timeout(self._queue.lease_s / 3):
                kept = await self._queue.beat([running.lease for running in held])
        except Exception as error:  # the next beats fit into the lease; if they fail too, the work is dropped
            self._beat_failed = True
            self._failed("beat_failed", error)
            return
        self._beat_failed = False
        for running in held:
            if running.lease.id in kept:
                running.tenure = running.tenure.renewed(sent_at_s)
            else:
                await self._drop(running)

    async def _drop(self, running: _Running) -> None:
        if await self._cancelled(running):
            log.warning("lease_lost", worker=self._name, job=running.lease.id, attempt=running.lease.attempt)
            self._count(running.lease, "lease_lost")

    async def _give_back(self, running: _Running) -> None:
        if await self._cancelled(running):
            self._count(running.lease, await self._released(running.lease))

    async def _released(self, lease: Lease) -> str:
        try:
            async with asyncio.timeout(self._call_timeout_s):
                await self._queue.release(lease)
        except LeaseLost:
            return "lease_lost"
        except Exception as error:  # a drain ends whatever the database does; the lease runs out by itself
            log.warning("release_failed", job=lease.id, reason=f"{type(error).__name__}: {error}")
            return "unsettled"
        return "released"

    async def _cancelled(self, running: _Running) -> bool:
        """Stop the job; false when it had finished before."""
        running.task.cancel()
        await asyncio.wait([running.task])
        if self._running.get(running.lease.id) is not running:  # dropped twice, it may run anew already
            return False
        del self._running[running.lease.id]
        return True

    async def _excuse(self) -> None:
        """Give back what the database has failed, before anything else is asked of it."""
        if self._owed:
            left = await self._queue.excuse(list(self._owed.values()), self._reason)
            self._owed = {lease.token: lease for lease in left}

    def _failed(self, event: str, error: Exception) -> None:
        """The database is in trouble."""
        self._reason = f"{type(error).__name__}: {error}"
        log.warning(event, worker=self._name, reason=self._reason)
        metrics.backfill_database_failures_total.inc()
        self._trouble.failed()

    def _count(self, lease: Lease, result: str) -> None:
        if result in _SETTLED and (failures := self._trouble.ended()):
            log.info("database_well_again", worker=self._name, failures=failures)
        self._finished[f"{lease.tier}/{result}"] += 1
        metrics.backfill_jobs_processed_total.labels(lease.tier, result).inc()
        self._wake.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
