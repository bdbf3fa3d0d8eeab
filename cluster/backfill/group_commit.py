"""Stores what jobs got from their providers and completes them, many in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from cluster import logs, metrics
from cluster.clock import Clock
from cluster.errors import LeaseLost, StorageError
from cluster.storage import known_gaps
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import Lease
from cluster.storage.bars import write
from cluster.storage.database import Connection
from cluster.storage.known_gaps import Asked, Hole

log = logs.get(__name__)


class Fences(Protocol):
    """What it needs of the queue."""

    def fenced_many(
        self, leases: Collection[Lease]
    ) -> AbstractAsyncContextManager[tuple[Connection, set[int]]]:
        """A transaction in which the leases of these ids are held."""
        ...

    async def complete_many(
        self, done: Sequence[tuple[Lease, int]], connection: Connection | None = None
    ) -> set[int]:
        """The jobs are done."""
        ...


@dataclass(frozen=True, slots=True)
class Filled:
    """What the provider gave for a job, checked."""

    lease: Lease
    provider: str
    bars: pa.Table
    holes: Sequence[Hole]


@dataclass(frozen=True, slots=True)
class _Entry:
    filled: Filled
    stored: asyncio.Future[int]


class GroupCommit:
    """Bars, known gaps and completion of a job commit together, under the fence of its lease.

    While one transaction runs the next jobs gather and share the one after it: alone nobody waits, under load
    the cost of a commit is shared. A group that fails is done again one by one, so that each job meets only
    its own error; trouble of the database is everybody's.
    """

    def __init__(self, queue: Fences, clock: Clock, *, most_jobs: int = 64, most_bars: int = 200_000) -> None:
        self._queue, self._clock = queue, clock
        self._most_jobs, self._most_bars = most_jobs, most_bars
        self._waiting: list[_Entry] = []
        self._runner: asyncio.Task[None] | None = None

    async def store(self, filled: Filled) -> int:
        """Returns the bars inserted or revised. Raises `LeaseLost`, `BadBars`, `StorageError`.

        Who stops waiting may or may not have its job stored; the lease tells.
        """
        entry = _Entry(filled, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name="group commit")
        return await entry.stored

    async def _run(self) -> None:
        while group := self._next():
            await self._settle(group)

    def _next(self) -> list[_Entry]:
        """The next group: of one symbol and interval only one job, because rows are counted by those."""
        group: dict[tuple[str, str], _Entry] = {}
        later: list[_Entry] = []
        bars = 0
        for entry in self._waiting:
            filled = entry.filled
            key = str(filled.lease.interval), filled.lease.symbol
            room = len(group) < self._most_jobs and (not group or bars + len(filled.bars) <= self._most_bars)
            if entry.stored.done():  # nobody waits for it any more
                continue
            if key in group or not room:
                later.append(entry)
            else:
                group[key] = entry
                bars += len(filled.bars)
        self._waiting = later
        return list(group.values())

    async def _settle(self, group: Sequence[_Entry]) -> None:
        try:
            rows = await self._stored([entry.filled for entry in group])
        except Exception as error:
            if len(group) > 1 and not isinstance(error, StorageError):
                for entry in group:
                    await self._settle([entry])
                return
            for entry in group:
                if not entry.stored.done():
                    entry.stored.set_exception(error)
            return
        for entry in group:
            if entry.stored.done():
                continue
            if (lease := entry.filled.lease).id in rows:
                entry.stored.set_result(rows[lease.id])
            else:
                entry.stored.set_exception(LeaseLost(f"the lease of job {lease.id} ended before its write"))

    async def _stored(self, group: Sequence[Filled]) -> dict[int, int]:
        """Rows written by the id of the job; those that are not named have lost their lease."""
        began_s = self._clock.monotonic_s()
        async with self._queue.fenced_many([each.lease for each in group]) as (connection, held):
            kept = [each for each in group if each.lease.id in held]
            if not kept:
                return {}
            asked_at = min(each.lease.leased_at for each in kept)
            written = await write(connection, pa.concat_tables(each.bars for each in kept), asked_at=asked_at)
            await known_gaps.record_many(connection, [_asked(each) for each in kept])
            changed = written.changed
            rows = [(each.lease, changed.get((each.lease.interval, each.lease.symbol), 0)) for each in kept]
            await self._queue.complete_many(rows, connection)
        metrics.write_batch_ms.observe((self._clock.monotonic_s() - began_s) * 1_000)
        return {lease.id: count for lease, count in rows}


def _asked(filled: Filled) -> Asked:
    lease = filled.lease
    return Asked(lease.symbol, lease.interval, filled.provider, Span(lease.start, lease.end), filled.holes)
