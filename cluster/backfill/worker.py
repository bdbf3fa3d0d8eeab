"""One job: ask a provider, validate, have it stored under the fence, done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from random import random
from typing import Literal, Protocol, assert_never

import numpy as np
import pyarrow as pa

from cluster import logs, metrics
from cluster.backfill.group_commit import Fences, Filled, GroupCommit
from cluster.backfill.lease import backoff_s
from cluster.backfill.plan import settled_end
from cluster.backfill.verdict import GiveUp, Retry, Snooze, explain, verdict
from cluster.clock import Clock
from cluster.errors import (
    InputError,
    Interrupted,
    InvalidSymbol,
    LeaseLost,
    Malformed,
    NotEntitled,
    OutOfHorizon,
    ProviderDown,
    ProviderError,
    RateLimited,
    Refused,
    StorageError,
)
from cluster.market import bars, gaps
from cluster.market.instants import Instants, to_instant
from cluster.market.intervals import Interval
from cluster.providers.protocol import BarSource
from cluster.redaction import redact
from cluster.storage import backfill_progress
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import JobState, Lease
from cluster.storage.bars import write
from cluster.storage.known_gaps import Cause, Hole

log = logs.get(__name__)

Result = Literal["done", "retried", "snoozed", "dead", "lease_lost"]

Expected = Callable[[str, Interval, datetime, datetime], Awaitable[Instants | None]]
"""Opens of the bars that should exist in a half-open range; `None` when nobody knows the symbol."""


Ask = Callable[[BarSource], Awaitable[pa.Table]]
"""Has a source give the bars of the job at hand; errors as those of `BarSource.fetch`."""
Routing = Callable[[Lease, Ask], Awaitable[tuple[str, pa.Table]]]
"""Finds somebody who gives the bars of a job; answers the provider and its bars."""


class Jobs(Fences, Protocol):
    """What a worker needs of the queue."""

    async def take_slot(self, lease: Lease, provider: str) -> None:
        """Count a job for the provider that it is routed to; `RateLimited` when it has no room."""
        ...

    async def pause(self, provider: str, wait_s: float, reason: str) -> None:
        """Have no job ask the provider for so long."""
        ...

    async def snooze(self, lease: Lease, wait_s: float, reason: str) -> JobState:
        """Wait without using an attempt."""
        ...

    async def fail(self, lease: Lease, reason: str, *, retry_in_s: float | None) -> JobState:
        """Try again later, or never."""
        ...


class Worker:
    """Works one job at a time per call; any number of calls may run at once.

    A job that names no provider goes to those that `route` chooses; without a route `sources` are asked in
    their order, until one is entitled and knows the symbol. A source that gives no answer within
    `fetch_timeout_s` counts as down.
    """

    def __init__(
        self,
        jobs: Jobs,
        sources: Mapping[str, BarSource],
        expected: Expected,
        clock: Clock,
        route: Routing | None = None,
        *,
        fetch_timeout_s: float = 60.0,
        grace_s: float = 60.0,
    ) -> None:
        self._jobs = jobs
        self._commits = GroupCommit(jobs, clock)
        self._sources = dict(sources)
        self._expected = expected
        self._clock = clock
        self._route = route
        self._fetch_timeout_s = fetch_timeout_s
        self._grace_s = grace_s

    async def run(self, lease: Lease) -> Result:
        """Work on the job of `lease` and settle it in the queue; cancelling leaves it leased.

        Raises `StorageError` when the database is in trouble; the job is leased then, and not to blame.
        """
        try:
            try:
                return await self._fill(lease)
            except (LeaseLost, StorageError):
                raise
            except Exception as error:  # a job must be settled, whatever went wrong with it
                return await self._settle(lease, error)
        except LeaseLost:
            log.warning("lease_lost", job=lease.id, attempt=lease.attempt, symbol=lease.symbol)
            return "lease_lost"

    async def _fill(self, lease: Lease) -> Result:
        try:
            provider, table = await self._fetch(lease)
        except Interrupted as part:
            await self._keep(lease, part)
            raise part.cause from part
        checked = bars.validate(table, self._clock.now())
        holes = await self._holes(lease, checked)
        rows = await self._commits.store(Filled(lease, provider, checked.good, holes))
        metrics.bars_written_total.labels(provider).inc(rows)
        log.info(
            "job_done", job=lease.id, symbol=lease.symbol, interval=str(lease.interval), provider=provider,
            written=rows, rejected=len(checked.rejected), holes=len(holes),
        )  # fmt: skip
        return "done"

    async def _keep(self, lease: Lease, part: Interrupted) -> None:
        """Store what was answered before the provider broke off, so that the next attempt begins after it."""
        _require_only(part.bars, lease)
        checked = bars.validate(bars.between(part.bars, lease.start, lease.end), self._clock.now())
        async with self._jobs.fenced_many([lease]) as (connection, held):
            if lease.id not in held:
                raise LeaseLost(f"the lease of job {lease.id} has ended")
            written = await write(connection, checked.good, asked_at=lease.leased_at)
            await backfill_progress.advance(connection, lease, part.until)
        for source in checked.good["source"].unique().to_pylist():  # one, whoever of the route it was
            metrics.bars_written_total.labels(source).inc(written.inserted + written.revised)
        log.info("job_advanced", job=lease.id, until=part.until.isoformat(), inserted=written.inserted)

    async def _fetch(self, lease: Lease) -> tuple[str, pa.Table]:
        if lease.provider is None and self._route is not None:
            return await self._route(lease, partial(self._ask, lease=lease))
        refusals: list[str] = []
        for name, source in self._candidates(lease):
            try:
                return name, await self._ask(source, lease)
            except (NotEntitled, InvalidSymbol, OutOfHorizon, InputError) as refusal:
                refusals.append(f"{name}: {refusal}")
        raise NotEntitled(f"no provider gives {lease.interval} bars of {lease.symbol}: {'; '.join(refusals)}")

    def _candidates(self, lease: Lease) -> Sequence[tuple[str, BarSource]]:
        if lease.provider is None:
            return list(self._sources.items())
        if lease.provider not in self._sources:
            known = ", ".join(self._sources) or "none"
            raise NotEntitled(f"provider {lease.provider!r} is not configured; configured: {known}")
        return [(lease.provider, self._sources[lease.provider])]

    async def _ask(self, source: BarSource, lease: Lease) -> pa.Table:
        """The bars of the job; a provider that has no budget left is left alone by all jobs until it has."""
        name = next(name for name, each in self._sources.items() if each is source)
        if lease.provider is None:
            await self._jobs.take_slot(lease, name)
        try:
            async with asyncio.timeout(self._fetch_timeout_s):
                table = await source.fetch(lease.symbol, lease.interval, lease.start, lease.end)
        except TimeoutError as error:
            raise ProviderDown(f"no answer within {self._fetch_timeout_s:g} s") from error
        except ProviderError as error:
            await self._pause(name, error.cause if isinstance(error, Interrupted) else error)
            raise
        _require_only(table, lease)
        return bars.between(table, lease.start, lease.end)

    async def _pause(self, provider: str, error: ProviderError) -> None:
        """Have all jobs leave alone a provider that said when to come back."""
        if isinstance(error, RateLimited | Refused) and error.retry_at is not None:
            await self._jobs.pause(provider, self._until_s(error.retry_at), explain(error))

    def _until_s(self, moment: datetime) -> float:
        """Seconds from now on; the queue counts them by the database's clock, which ours may differ from."""
        return (moment - self._clock.now()).total_seconds()

    async def _holes(self, lease: Lease, checked: bars.Validated) -> list[Hole]:
        now = min(self._clock.now(), lease.leased_at)  # by a clock that is ahead the future is missing
        end = settled_end(lease.end, lease.interval, now, self._grace_s)
        if end <= lease.start:
            return []
        expected = await self._expected(lease.symbol, lease.interval, lease.start, end)
        if expected is None:
            return []
        return holes(expected, checked, lease.interval)

    async def _settle(self, lease: Lease, error: Exception) -> Result:
        reason = redact(explain(error))
        match verdict(error):
            case Snooze(retry_at):
                state = await self._jobs.snooze(lease, self._until_s(retry_at), reason)
                result: Result = "snoozed"
            case Retry():
                delay_s = backoff_s(lease.attempt, random())  # noqa: S311 - spreads retries, guards nothing
                state = await self._jobs.fail(lease, reason, retry_in_s=delay_s)
                result = "retried"
            case GiveUp():
                state = await self._jobs.fail(lease, reason, retry_in_s=None)
                result = "dead"
            case other:
                assert_never(other)
        result = "dead" if state == "dead" else result
        log.warning("job_failed", job=lease.id, attempt=lease.attempt, result=result, reason=reason)
        return result


def holes(expected: Instants, checked: bars.Validated, interval: Interval) -> list[Hole]:
    """The expected bars that are not among the good and final ones, as ranges with their cause."""
    final = checked.good.filter(checked.good["is_final"])
    good, rejected = bars.opens(final), bars.opens(checked.rejected)
    found = gaps.find(expected, good, interval)
    return [Hole(Span(gap.start, gap.end), _cause(gap, good, rejected)) for gap in found]


def _cause(gap: gaps.Gap, good: Instants, rejected: Instants) -> Cause:
    inside = (rejected >= to_instant(gap.start)) & (rejected < to_instant(gap.end))
    if np.any(inside):
        return "rejected"
    return "provider_hole" if len(good) else "no_data"


def _require_only(table: pa.Table, lease: Lease) -> None:
    for name, wanted in (("symbol", lease.symbol), ("interval", str(lease.interval))):
        others = sorted(str(value) for value in table[name].unique().to_pylist() if value != wanted)
        if others:
            raise Malformed(f"asked for {name} {wanted}, the answer holds {', '.join(others)}")
