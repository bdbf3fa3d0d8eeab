"""The claim loop against a queue in memory and a clock that stands still until it is told otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import uuid4

from cluster import metrics
from cluster.backfill.pool import Pool
from cluster.backfill.worker import Result
from cluster.clock import FakeClock
from cluster.errors import FinSightError, LeaseLost, StorageError
from cluster.market.intervals import Interval
from cluster.storage.backfill_records import Lease

T = datetime(2025, 10, 8, 14, tzinfo=UTC)
LEASE_S = 0.3  # the loop looks after its leases every hundredth of a second


def lease(job: int) -> Lease:
    return Lease(
        id=job,
        token=uuid4(),
        symbol="AAPL",
        interval=Interval.M1,
        start=T,
        end=T,
        tier="T0",
        provider=None,
        attempt=1,
        max_attempts=3,
        leased_at=T,
        lease_until=T,
    )


class FakeQueue:
    """Hands out what it is given; beats are accepted for all but the lost."""

    lease_s = LEASE_S

    def __init__(self, jobs: int = 0) -> None:
        self.waiting = [lease(number) for number in range(jobs)]
        self.lost: set[int] = set()
        self.released: list[int] = []
        self.unreleasable: dict[int, FinSightError] = {}
        self.asked: list[int] = []
        self.beats = 0
        self.excused: list[int] = []
        self.busy: set[int] = set()
        self.broken = False

    async def claim(self, worker: str, limit: int) -> list[Lease]:
        self.asked.append(limit)
        if self.broken:
            raise StorageError("away")
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    async def beat(self, leases: Collection[Lease]) -> set[int]:
        self.beats += 1
        if self.broken:
            raise StorageError("away")
        return {one.id for one in leases} - self.lost

    async def release(self, one: Lease) -> None:
        if one.id in self.unreleasable:
            raise self.unreleasable[one.id]
        self.released.append(one.id)

    async def excuse(self, leases: Collection[Lease], reason: str) -> list[Lease]:
        if self.broken:
            raise StorageError("away")
        self.excused += [one.id for one in leases if one.id not in self.busy]
        return [one for one in leases if one.id in self.busy]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go on until it got there."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the code under test has no event for a test to wait for
            await asyncio.sleep(0)


class Work:
    """Jobs that go on until they are told to end."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.cancelled: list[int] = []
        self.end = asyncio.Event()
        self.most = 0

    async def __call__(self, one: Lease) -> Result:
        self.started.append(one.id)
        self.most = max(self.most, len(self.started) - len(self.cancelled))
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled.append(one.id)
            raise
        return "done"


@asynccontextmanager
async def running(
    queue: FakeQueue,
    work: Callable[[Lease], Awaitable[Result]],
    clock: FakeClock | None = None,
    *,
    concurrency: int = 8,
) -> AsyncIterator[Pool]:
    pool = Pool("w", queue, work, clock or FakeClock(T), batch=4, concurrency=concurrency, poll_s=0.001)
    loop = asyncio.create_task(pool.run())
    yield pool
    await pool.drain(grace_s=0)
    await loop


async def test_it_runs_as_many_jobs_as_it_may_and_claims_no_more_than_can_start() -> None:
    queue, work = FakeQueue(jobs=20), Work()
    async with running(queue, work, concurrency=6) as pool:
        await until(lambda: len(work.started) == 6)
        assert queue.asked[:2] == [4, 2]
        assert pool.stats().running == 6
        work.end.set()
        await until(lambda: pool.stats().finished.get("T0/done") == 20)
    assert pool.stats().claimed == 20


async def test_a_job_whose_lease_is_lost_is_cancelled() -> None:
    queue, work, clock = FakeQueue(jobs=2), Work(), FakeClock(T)
    async with running(queue, work, clock) as pool:
        await until(lambda: len(work.started) == 2)
        queue.lost = {1}
        clock.advance(LEASE_S / 3)
        await until(lambda: pool.stats().running == 1)
        assert work.cancelled == [1]
    assert pool.stats().finished == {"T0/lease_lost": 1, "T0/released": 1}
    assert (queue.released, queue.excused) == ([0], [])


async def test_work_stops_by_itself_before_a_lease_that_cannot_be_renewed_ends() -> None:
    queue, work, clock = FakeQueue(jobs=1), Work(), FakeClock(T)
    async with running(queue, work, clock):
        await until(lambda: work.started == [0])
        queue.broken = True
        clock.advance(0.89 * LEASE_S)
        await until(lambda: queue.beats > 5)
        assert work.cancelled == []
        clock.advance(0.02 * LEASE_S)
        await until(lambda: work.cancelled == [0])
        assert queue.excused == []
        queue.broken = False
        await until(lambda: queue.excused == [0])  # it was the database that did not hear of us


async def test_a_renewed_lease_goes_on() -> None:
    queue, work, clock = FakeQueue(jobs=1), Work(), FakeClock(T)
    async with running(queue, work, clock) as pool:
        await until(lambda: work.started == [0])
        for _ in range(6):
            clock.advance(LEASE_S / 2)
            await until(lambda: pool._running[0].tenure.renewed_at_s == clock.monotonic_s())
        assert work.cancelled == []


async def test_the_loop_outlives_a_database_that_is_away() -> None:
    queue, work = FakeQueue(jobs=1), Work()
    queue.broken = True
    async with running(queue, work):
        await until(lambda: len(queue.asked) > 5)
        queue.broken = False
        await until(lambda: work.started == [0])


async def test_a_drain_lets_jobs_finish_within_the_grace() -> None:
    queue, work = FakeQueue(jobs=3), Work()
    async with running(queue, work) as pool:
        await until(lambda: len(work.started) == 3)
        work.end.set()
        await pool.drain(grace_s=60)
        assert pool.stats().finished == {"T0/done": 3}
    assert queue.released == []


async def test_a_drain_gives_back_what_does_not_finish() -> None:
    queue, work = FakeQueue(jobs=3), Work()
    async with running(queue, work) as pool:
        await until(lambda: len(work.started) == 3)
    assert (sorted(work.cancelled), sorted(queue.released)) == ([0, 1, 2], [0, 1, 2])
    assert pool.stats().running == 0


async def test_a_job_that_cannot_even_be_settled_leaves_the_loop_alive() -> None:
    async def crash(one: Lease) -> Result:
        raise RuntimeError("a bug")

    queue = FakeQueue(jobs=2)
    async with running(queue, crash) as pool:
        await until(lambda: pool.stats().finished == {"T0/unsettled": 2})
    assert queue.excused == []


class Full:
    """A database that takes claims, but no bars until it has room."""

    def __init__(self) -> None:
        self.tried: list[int] = []
        self.is_full = True

    async def __call__(self, one: Lease) -> Result:
        self.tried.append(one.id)
        if self.is_full:
            raise StorageError("no space left on device")
        return "done"


async def test_jobs_that_the_database_failed_are_given_back_and_one_at_a_time_tries_again() -> None:
    queue, disk = FakeQueue(jobs=40), Full()
    async with running(queue, disk, concurrency=4) as pool:
        await until(lambda: len(queue.excused) >= 7)
        first, *others = queue.asked
        assert (first, set(others)) == (4, {1})
        assert queue.excused == disk.tried[: len(queue.excused)] == list(range(len(queue.excused)))
        disk.is_full = False
        await until(lambda: not queue.waiting)
        failed = pool.stats().finished["T0/postponed"]
        await until(lambda: pool.stats().finished == {"T0/postponed": failed, "T0/done": 40 - failed})
        assert max(queue.asked[-20:]) == 4
    assert len(queue.excused) == failed


async def test_a_job_that_is_still_being_written_is_asked_to_be_given_back_again() -> None:
    queue, disk = FakeQueue(jobs=1), Full()
    queue.busy = {0}
    async with running(queue, disk) as pool:
        await until(lambda: pool.stats().finished == {"T0/postponed": 1})
        await until(lambda: len(queue.asked) > 4)
        assert queue.excused == []
        queue.busy = set()
        await until(lambda: queue.excused == [0])


async def test_what_the_database_failed_is_given_back_at_the_end_of_a_drain() -> None:
    queue, disk = FakeQueue(jobs=1), Full()
    queue.busy = {0}
    async with running(queue, disk) as pool:
        await until(lambda: pool.stats().finished == {"T0/postponed": 1})
        queue.busy = set()
    assert queue.excused == [0]


async def test_an_outage_is_counted() -> None:
    def counted() -> float:
        return metrics.REGISTRY.get_sample_value("backfill_database_failures_total") or 0.0

    before, queue = counted(), FakeQueue()
    queue.broken = True
    async with running(queue, Work()):
        await until(lambda: counted() >= before + 2)


async def test_a_job_that_comes_back_to_the_worker_that_lost_it_runs_once_and_is_looked_after() -> None:
    """After a freeze the loop may claim its own expired job before it notices that it lost it."""
    queue, work = FakeQueue(jobs=1), Work()
    async with running(queue, work) as pool:
        await until(lambda: work.started == [0])
        queue.waiting = [lease(0)]
        await until(lambda: work.started == [0, 0])
        assert (work.cancelled, pool.stats().running) == ([0], 1)
        work.end.set()
        await until(lambda: pool.stats().finished == {"T0/lease_lost": 1, "T0/done": 1})
    assert pool.stats().running == 0


async def test_a_job_that_comes_back_while_it_is_dropped_twice_is_looked_after() -> None:
    """The claim and the heartbeat both wait for the lost attempt to stop; only that one is forgotten."""
    queue, clock, stopped = FakeQueue(jobs=1), FakeClock(T), asyncio.Event()
    work = Work()

    async def slow_to_stop(one: Lease) -> Result:
        try:
            return await work(one)
        finally:
            while not stopped.is_set():
                with suppress(asyncio.CancelledError):
                    await stopped.wait()

    async with running(queue, slow_to_stop, clock) as pool:
        await until(lambda: work.started == [0])
        queue.waiting = [lease(0)]
        await until(lambda: work.cancelled == [0])
        queue.lost = {0}
        clock.advance(LEASE_S / 2)  # the heartbeat drops it, too
        for _ in range(100):
            await asyncio.sleep(LEASE_S / 1_000)
        queue.lost = set()
        stopped.set()
        await until(lambda: work.started == [0, 0])
        assert pool.stats().running == 1
        work.end.set()
        await until(lambda: pool.stats().finished == {"T0/lease_lost": 1, "T0/done": 1})


async def test_a_drain_ends_even_when_nothing_can_be_given_back() -> None:
    queue, work = FakeQueue(jobs=3), Work()
    async with asyncio.timeout(30), running(queue, work) as pool:
        await until(lambda: len(work.started) == 3)
        queue.unreleasable = {0: LeaseLost("expired"), 1: StorageError("away")}
    assert (sorted(work.cancelled), queue.released) == ([0, 1, 2], [2])
    assert pool.stats().finished == {"T0/lease_lost": 1, "T0/unsettled": 1, "T0/released": 1}
