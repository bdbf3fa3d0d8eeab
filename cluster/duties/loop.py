"""Runs duties side by side, each at its own pace, so that a slow or failing one delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from random import uniform

from cluster import logs, metrics
from cluster.clock import Clock
from cluster.duties.duty import Duty
from cluster.redaction import redact

log = logs.get(__name__)

_FIRST_S = 2.0
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class DutyStats:
    """What became of a duty since the process started."""

    name: str
    period_s: float
    runs: int = 0
    failures: int = 0
    succeeded_at: datetime | None = None
    """End of the last run that did not fail."""
    last_error: str | None = None
    """Of the last run; `None` when it went well."""


class _Turn:
    """One duty and its loop."""

    def __init__(self, duty: Duty) -> None:
        self.duty = duty
        self.changed = asyncio.Event()
        self.runs = self.failures = 0
        self.succeeded_at: datetime | None = None
        self.last_error: str | None = None


class Duties:
    """Every duty runs soon after the start and then each period, give or take a tenth."""

    def __init__(self, duties: Iterable[Duty], clock: Clock, *, first_s: float = _FIRST_S) -> None:
        self._clock, self._first_s = clock, first_s
        self._turns = {duty.name: _Turn(duty) for duty in duties}

    async def run(self) -> None:
        """Goes on until it is cancelled; a run in progress is cancelled with it."""
        async with asyncio.TaskGroup() as group:
            for turn in self._turns.values():
                group.create_task(self._repeat(turn), name=f"duty {turn.duty.name}")

    def renew(self, duties: Iterable[Duty]) -> None:
        """From the next round on do these instead; they have the names of those there are."""
        for duty in duties:
            turn = self._turns[duty.name]
            if duty.period_s != turn.duty.period_s:
                turn.changed.set()
            turn.duty = duty

    def stats(self) -> list[DutyStats]:
        """Of every duty."""
        return [
            DutyStats(
                turn.duty.name,
                turn.duty.period_s,
                turn.runs,
                turn.failures,
                turn.succeeded_at,
                turn.last_error,
            )
            for turn in self._turns.values()
        ]

    async def _repeat(self, turn: _Turn) -> None:
        await asyncio.sleep(uniform(0, min(self._first_s, turn.duty.period_s)))  # noqa: S311 - spreads work
        while True:
            await self._once(turn)
            await self._pause(turn)

    async def _once(self, turn: _Turn) -> None:
        turn.runs += 1
        try:
            await turn.duty.run()
        except Exception as error:  # it comes back, whatever went wrong
            turn.failures += 1
            turn.last_error = redact(f"{type(error).__name__}: {error}")
            metrics.duty_failures_total.labels(turn.duty.name).inc()
            log.warning("duty_failed", duty=turn.duty.name, reason=turn.last_error)
        else:
            turn.succeeded_at, turn.last_error = self._clock.now(), None

    async def _pause(self, turn: _Turn) -> None:
        """A period from now on; a period that has changed begins anew."""
        while True:
            turn.changed.clear()
            spread = uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - keeps clusters out of step
            with suppress(TimeoutError):
                await asyncio.wait_for(turn.changed.wait(), turn.duty.period_s * spread)
                continue
            return
