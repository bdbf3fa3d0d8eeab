"""The looks of one shard, each at its time; what happens to one delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Literal, Protocol

from cluster import logs, metrics
from cluster.clock import Clock
from cluster.ingest.cadence import Cadence
from cluster.ingest.claims import Claim
from cluster.ingest.sweep import Sweeper
from cluster.redaction import redact
from cluster.storage.sweeps import Sweep

log = logs.get(__name__)

Outcome = Literal["done", "alone", "elsewhere", "failed"]

_LONGEST_WAIT_S = 5.0
"""The clock is looked at again after this: it may have been set."""
_AGAIN_S = 2.0
"""What another has begun is looked at again after this: it may have died."""
_RETRY_S = 10.0
"""A look that failed as a whole is done again after this: the next one may be hours away."""


class SharedLooks(Protocol):
    """Who does a look that several collectors have due."""

    async def claim(self, cadence: Cadence, number: int) -> Claim:
        """See `Claims.claim`."""
        ...

    async def hold(self, cadence: Cadence, number: int) -> None:
        """See `Claims.hold`."""
        ...

    async def done(self, cadence: Cadence, number: int) -> None:
        """See `Claims.done`."""
        ...


class Collector:
    """Looks at once when it starts, and then whenever a cadence says so.

    `claims`: shares the looks with other clusters. While Redis is out of reach everybody looks for himself
    if `locally`, and nobody otherwise.
    """

    def __init__(
        self,
        sweeper: Sweeper,
        record: Callable[[Sweep], Awaitable[None]],
        cadences: Sequence[Cadence],
        clock: Clock,
        claims: SharedLooks | None = None,
        *,
        locally: bool = True,
    ) -> None:
        self._sweeper, self._record, self._cadences = sweeper, record, tuple(cadences)
        self._clock, self._claims, self._locally = clock, claims, locally
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Look until `end`; to be called once."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ending.wait())
            for cadence in self._cadences:
                group.create_task(self._follow(cadence))

    def end(self) -> None:
        """Begin nothing new; `run` returns when what has begun is over."""
        self._ending.set()

    async def _follow(self, cadence: Cadence) -> None:
        before = -2
        while not self._ending.is_set():
            phase_s = cadence.phase_s(await self._sweeper.graces_s(cadence.interval))
            number = cadence.number(self._clock.now(), phase_s)
            next_at = cadence.moment(number + 1, phase_s)
            if before - 1 <= number <= before:  # it may have moved by a provider that came or went
                await self._wait_for(next_at, _LONGEST_WAIT_S)
                continue
            outcome = await self._look(cadence, number, next_at)
            if outcome is None:
                await self._wait_for(next_at, _AGAIN_S)
                continue
            metrics.collection_sweeps_total.labels(cadence.tier, str(cadence.interval), outcome).inc()
            if outcome == "failed":
                await self._wait_for(next_at, _RETRY_S)
                continue
            before = number

    async def _look(self, cadence: Cadence, number: int, next_at: datetime) -> Outcome | None:
        """How look `number` ended; `None` while another is at it."""
        claim: Claim = await self._claims.claim(cadence, number) if self._claims else "ours"
        if claim == "theirs":
            return None
        if claim == "done" or (claim == "unknown" and not self._locally):
            return "elsewhere" if claim == "done" else "failed"
        try:
            async with self._held(cadence, number):
                # A task of its own: a group of tasks that failed leaves the one it is in marked as cancelled,
                # and before Python 3.11.3 the next timeout that runs out then ends that in silence.
                sweep = await asyncio.create_task(self._sweeper.sweep(cadence, next_at))
            await self._record(sweep)
        except Exception as error:  # the database may come back; what was not collected is collected then
            log.warning(
                "sweep_failed", tier=cadence.tier, interval=str(cadence.interval), reason=redact(repr(error))
            )
            return "failed"
        if self._claims:
            await self._claims.done(cadence, number)
        log.info(
            "sweep_done", tier=sweep.tier, interval=str(sweep.interval), symbols=sweep.symbols,
            unserved=sweep.unserved, failed=sweep.failed, bars=sweep.bars, lag_p99_s=sweep.lag_p99_s,
            seconds=round((sweep.finished_at - sweep.started_at).total_seconds(), 3),
        )  # fmt: skip
        return "alone" if claim == "unknown" else "done"

    @asynccontextmanager
    async def _held(self, cadence: Cadence, number: int) -> AsyncIterator[None]:
        holding = asyncio.create_task(self._claims.hold(cadence, number)) if self._claims else None
        try:
            yield
        finally:
            if holding:
                holding.cancel()

    async def _wait_for(self, moment: datetime, longest_s: float) -> None:
        """Until `moment`, or `longest_s`, or the end."""
        wait_s = (moment - self._clock.now()).total_seconds()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(wait_s, longest_s))):
                await self._ending.wait()
