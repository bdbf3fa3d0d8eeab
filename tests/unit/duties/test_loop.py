from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from cluster.clock import FakeClock
from cluster.duties.duty import Duty
from cluster.duties.loop import Duties

NOW = datetime(2025, 10, 8, 14, tzinfo=UTC)


class Work:
    """Counts its runs, and tells when it has run so often."""

    def __init__(self, enough: int, error: Exception | None = None) -> None:
        self.runs, self._enough, self._error = 0, enough, error
        self.done = asyncio.Event()

    async def __call__(self) -> None:
        self.runs += 1
        if self.runs >= self._enough:
            self.done.set()
        if self._error:
            raise self._error


async def never_ends() -> None:
    await asyncio.Event().wait()


async def until(duties: Duties, *works: Work) -> None:
    running = asyncio.create_task(duties.run())
    async with asyncio.timeout(60):
        for work in works:
            await work.done.wait()
    running.cancel()
    await asyncio.wait([running])


async def test_a_duty_that_fails_or_never_ends_delays_no_other() -> None:
    well, failing = Work(3), Work(3, ValueError("no table at http://a:b@c/"))
    duties = Duties(
        [Duty("slow", 0.001, never_ends), Duty("failing", 0.001, failing), Duty("well", 0.001, well)],
        FakeClock(NOW),
        first_s=0,
    )
    await until(duties, failing, well)
    stats = {each.name: each for each in duties.stats()}
    assert (stats["slow"].runs, stats["slow"].succeeded_at) == (1, None)
    assert stats["failing"].failures >= 3
    assert stats["failing"].last_error == "ValueError: no table at http://a:***@c/"
    assert (stats["well"].failures, stats["well"].succeeded_at, stats["well"].last_error) == (0, NOW, None)


async def test_a_renewed_duty_is_done_in_the_next_round_at_its_new_pace() -> None:
    before, after = Work(1), Work(1)
    duties = Duties([Duty("scan", 3_600, before)], FakeClock(NOW), first_s=0)
    running = asyncio.create_task(duties.run())
    async with asyncio.timeout(60):
        await before.done.wait()
        await asyncio.sleep(0)
        duties.renew([Duty("scan", 0.001, after)])
        await after.done.wait()
    running.cancel()
    await asyncio.wait([running])
    assert before.runs == 1
