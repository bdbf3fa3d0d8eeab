"""Claims and completions of empty jobs, beside two queues on PostgreSQL: `python -m benchmarks.queue`.

All three work off jobs on the same server with the same number of workers in one process, the same batch, as
many jobs at once and as many connections, each as its documentation shows. Ours is the production
path: the claim loop of a backfill worker, fenced leases, the group commit that stores bars, attempts kept as
history. Jobs are enqueued before the clock starts; it stops when the last job has run (peers) or is committed
(ours). Each measurement is a process of its own; the three take turns.

pgqueuer: https://github.com/janbjorge/pgqueuer, procrastinate: https://github.com/procrastinate-org/procrastinate
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from benchmarks.million_bars import private_server
from benchmarks.report import report
from cluster.backfill.group_commit import Filled, GroupCommit
from cluster.backfill.pool import Pool
from cluster.backfill.worker import Result
from cluster.clock import SystemClock
from cluster.market.bars import BAR_SCHEMA
from cluster.market.intervals import Interval
from cluster.redaction import redact
from cluster.storage.backfill_enqueue import Wanted
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import Lease
from cluster.storage.database import Database

ROUNDS = 5
WORKERS = 5
BATCH = 10
AT_ONCE = 4 * BATCH
CONNECTIONS = 4
JOBS = 10_000
SLOW_JOBS = 2_000
GOAL = 1.0
_DAY = datetime(2025, 10, 1, tzinfo=UTC)
_TIMEOUT_S = 300.0


class Countdown:
    """Tells when the last job has run."""

    def __init__(self, jobs: int) -> None:
        self._left = jobs
        self.over = asyncio.Event()

    def one(self) -> None:
        """A job has run."""
        self._left -= 1
        if self._left == 0:
            self.over.set()


async def ours(dsn: str, limits: Mapping[str, int] | None = None) -> float:
    """Jobs per second of our queue."""
    database = await Database.open(dsn)
    await database.pool.execute("TRUNCATE backfill_jobs, backfill_attempts")
    wanted = [
        Wanted(f"SYN{number:05d}", Interval.M1, Span(_DAY, _DAY + timedelta(hours=1)), "T2", None)
        for number in range(JOBS)
    ]
    await BackfillQueue(database).enqueue_many(wanted)
    await settle(database)
    databases = [await Database.open(dsn, max_size=CONNECTIONS, reset_sessions=False) for _ in range(WORKERS)]
    countdown, clock = Countdown(JOBS), SystemClock()
    nothing = BAR_SCHEMA.empty_table()

    def pool(number: int) -> Pool:
        queue = BackfillQueue(databases[number], limits=limits or {})  # type: ignore[arg-type]
        commits = GroupCommit(queue, clock)

        async def work(lease: Lease) -> Result:
            await commits.store(Filled(lease, "nobody", nothing, ()))
            countdown.one()
            return "done"

        return Pool(f"w{number}", queue, work, clock, batch=BATCH, concurrency=AT_ONCE)

    pools = [pool(number) for number in range(WORKERS)]
    began_s = time.perf_counter()
    running = [asyncio.create_task(each.run()) for each in pools]
    await countdown.over.wait()
    took_s = time.perf_counter() - began_s
    await asyncio.gather(*(each.drain(5) for each in pools))
    await asyncio.gather(*running)
    done = await database.pool.fetchval("SELECT count(*) FROM backfill_attempts WHERE outcome = 'done'")
    if done != JOBS:
        raise SystemExit(f"{done} of {JOBS} jobs are done")
    for each in (database, *databases):
        await each.close()
    return JOBS / took_s


async def pgqueuer(dsn: str) -> float:
    """Jobs per second of pgqueuer, with its default of durable tables."""
    import asyncpg
    from pgqueuer import AsyncpgPoolDriver, Queries, QueueManager

    pools = [await asyncpg.create_pool(dsn, min_size=2, max_size=CONNECTIONS) for _ in range(WORKERS)]
    queries = [Queries(AsyncpgPoolDriver(pool)) for pool in pools]
    await queries[0].install()
    await queries[0].enqueue(["nothing"] * JOBS, [None] * JOBS, [0] * JOBS)
    database = await Database.open(dsn)
    await settle(database)
    countdown = Countdown(JOBS)

    def manager(number: int) -> QueueManager:
        made = QueueManager(queries[number])

        async def nothing(_job: object) -> None:
            countdown.one()

        made.entrypoint("nothing")(nothing)
        return made

    managers = [manager(number) for number in range(WORKERS)]
    began_s = time.perf_counter()
    running = [
        asyncio.create_task(each.run(batch_size=BATCH, max_concurrent_tasks=AT_ONCE)) for each in managers
    ]
    await countdown.over.wait()
    took_s = time.perf_counter() - began_s
    for each in managers:
        each.shutdown.set()
    await asyncio.gather(*running)
    await queries[0].uninstall()
    await database.close()
    for pool in pools:
        await pool.close()
    return JOBS / took_s


async def procrastinate(dsn: str) -> float:
    """Jobs per second of procrastinate, which fetches and finishes one job at a time."""
    from procrastinate import App, PsycopgConnector

    countdown = Countdown(SLOW_JOBS)

    async def nothing() -> None:
        countdown.one()

    database = await Database.open(dsn)
    await database.pool.execute("CREATE SCHEMA peer")
    options = {"options": "-c search_path=peer"}
    apps = [
        App(connector=PsycopgConnector(conninfo=dsn, kwargs=options, max_size=CONNECTIONS))
        for _ in range(WORKERS)
    ]
    tasks = [app.task(name="nothing")(nothing) for app in apps]
    for app in apps:
        await app.open_async()
    await apps[0].schema_manager.apply_schema_async()
    await tasks[0].batch_defer_async(*({} for _ in range(SLOW_JOBS)))
    await settle(database)
    began_s = time.perf_counter()
    running = [
        asyncio.create_task(
            app.run_worker_async(concurrency=AT_ONCE, install_signal_handlers=False, wait=False)
        )
        for app in apps
    ]
    await countdown.over.wait()
    took_s = time.perf_counter() - began_s
    await asyncio.gather(*running)
    for app in apps:
        await app.close_async()
    await database.pool.execute("DROP SCHEMA peer CASCADE")
    await database.close()
    return SLOW_JOBS / took_s


async def settle(database: Database) -> None:
    """Statistics of the new rows, and a clean checkpoint."""
    await database.pool.execute("VACUUM ANALYZE")
    await database.pool.execute("CHECKPOINT")


SIDES: Mapping[str, Callable[[str], Awaitable[float]]] = {
    "ours": ours,
    "pgqueuer": pgqueuer,
    "procrastinate": procrastinate,
}


def measured(side: str, dsn: str) -> float:
    """Jobs per second of `side`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.queue", side]
    # The DSN holds a password: it goes by the environment, which no traceback and no list of processes shows.
    environment = {**os.environ, "DATABASE_URL": dsn}
    try:
        done = subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{side} has not done its jobs after {_TIMEOUT_S:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise SystemExit(f"{side} failed with exit status {done.returncode}: {redact(said[-1])}")
    return float(done.stdout)


async def main() -> None:
    """The three take turns on one server."""
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    async with private_server() as database:
        for _ in range(ROUNDS):
            for side in SIDES:
                dsn = database.dsn
                rates[side].append(await asyncio.to_thread(measured, side, dsn))
                print(side, round(rates[side][-1]), file=sys.stderr)
    medians = {side: statistics.median(rate) for side, rate in rates.items()}
    best = max(("pgqueuer", "procrastinate"), key=medians.__getitem__)
    told = ", ".join(f"{side} {medians[side]:.0f}" for side in ("pgqueuer", "procrastinate"))
    report(
        "queue",
        medians["ours"],
        medians[best],
        "jobs/s",
        digits=None,
        better="higher",
        goal=GOAL,
        note=f"peer: the faster of {told} jobs/s; {WORKERS} workers in one process, batch {BATCH}, "
        f"{AT_ONCE} jobs at once each; ours fenced, with history; medians of {ROUNDS} rounds in turn",
    )


if __name__ == "__main__":
    if len(sys.argv) == 1:
        asyncio.run(main())
    else:
        print(asyncio.run(SIDES[sys.argv[1]](os.environ["DATABASE_URL"])))  # type: ignore[arg-type]
