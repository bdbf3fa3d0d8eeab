"""Processes that a test starts, kills and freezes; the jobs they get and the table they leave."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from cluster.market.intervals import Interval
from cluster.ports import is_free
from cluster.providers.synthetic import SyntheticProvider
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database
from tests.chaos import history, worker_process
from tests.chaos.checker import Key, Row, Values, check
from tests.chaos.worker_process import Orders

WITHIN_S = 90.0
"""Liveness: how long after the end of a fault everything must be as it should, on a very busy machine."""

AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
"""What a client sees of a database that is away, or goes away meanwhile."""

# One process imports everything once; workers are forked from it in milliseconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([worker_process.__name__])

_ROWS = """
SELECT symbol, interval, extract(epoch FROM ts)::bigint AS ts, open, high, low, close, volume, revision
FROM candles_intraday
"""


_KNOWN = """
INSERT INTO symbol_universe (symbol, exchange, asset_type, calendar, tier)
SELECT symbol, 'SYNTHETIC', 'crypto', '24/7', 'T1' FROM unnest($1::text[]) AS symbol
"""

_VERSIONS = """
SELECT extract(epoch FROM ts)::bigint AS ts, revision FROM candles_intraday WHERE symbol = $1
"""


class Fleet:
    """The workers of one test, or the collectors; `orders` is what they have in common."""

    def __init__(self, orders: Orders, work: Callable[..., None] = worker_process.work) -> None:
        self.orders, self._work = orders, work
        self.clock_offset_s: Synchronized[float] = _CONTEXT.Value("d", 0.0)
        """By how much the clocks of all workers are wrong; may be set while they run."""
        self._processes: dict[str, ForkServerProcess] = {}

    def start(self, *names: str, **changes: Any) -> None:
        """Start workers, their orders with `changes`; a name may be used again after a kill."""
        for name in names:
            arguments = (replace(self.orders, name=name, **changes), self.clock_offset_s)
            process = _CONTEXT.Process(target=self._work, args=arguments, name=name)
            process.start()
            self._processes[name] = process

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one worker."""
        pid = self._processes[name].pid
        assert pid is not None
        os.kill(pid, number)

    def kill(self, name: str) -> None:
        """`kill -9`, and wait until it is gone."""
        self._processes[name].kill()
        self._processes.pop(name).join(30)

    def drain(self, name: str) -> int | None:
        """Ask one worker to finish; its exit status, None when it does not end in time."""
        self._processes[name].terminate()
        process = self._processes.pop(name)
        process.join(WITHIN_S)
        code = process.exitcode
        process.kill()
        return code

    def names(self) -> list[str]:
        """Those that were started and not killed."""
        return list(self._processes)

    def history(self) -> list[history.Event]:
        """The operation log so far."""
        return history.read(self.orders.folder)


@contextmanager
def fleet(orders: Orders, work: Callable[..., None] = worker_process.work) -> Iterator[Fleet]:
    """A fleet without processes yet, each of which will do `work`; none outlives the context."""
    made = Fleet(orders, work)
    try:
        yield made
    finally:
        for name in made.names():
            made.kill(name)


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = WITHIN_S) -> None:
    """Wait for something that other processes bring about; a database that is away is asked again."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if await asyncio.wait_for(condition(), 10.0):
                return
        except AWAY:
            pass
        await asyncio.sleep(0.02)
    raise AssertionError(f"it did not happen within {within_s:g} s")


async def query(dsn: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
    """One statement over a connection of its own, which no fault of a test outlives."""
    connection = await asyncpg.connect(dsn, timeout=5.0, command_timeout=30.0)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        connection.terminate()


async def count(dsn: str, state: str) -> int:
    """Jobs in `state`."""
    rows = await query(dsn, "SELECT count(*) FROM backfill_jobs WHERE state = $1", state)
    found: int = rows[0][0]
    return found


async def until_done(dsn: str, jobs: int, within_s: float = WITHIN_S) -> None:
    """Until so many jobs are done."""

    async def done() -> bool:
        return await count(dsn, "done") == jobs

    await until(done, within_s)


async def outcomes(dsn: str) -> dict[str, int]:
    """How many attempts ended in which way."""
    rows = await query(dsn, "SELECT outcome, count(*) AS n FROM backfill_attempts GROUP BY outcome")
    return {row["outcome"]: row["n"] for row in rows}


async def stored(dsn: str) -> list[Row]:
    """The whole table of intraday bars, read past all our own code."""
    return [
        Row(Key(row["symbol"], row["interval"], row["ts"]), tuple(row[3:8]), row["revision"])
        for row in await query(dsn, _ROWS)
    ]


async def synthetic(
    seed: int, symbols: Sequence[str], interval: Interval, start: datetime, end: datetime
) -> dict[Key, Values]:
    """What the synthetic provider gives."""
    found: dict[Key, Values] = {}
    for symbol in symbols:
        table = await SyntheticProvider(seed=seed).bars(symbol, interval, start, end)
        for bar in table.to_pylist():
            key = Key(symbol, str(interval), int(bar["ts"].timestamp()))
            found[key] = tuple(bar[name] for name in ("open", "high", "low", "close", "volume"))
    return found


async def between_the_ends(seed: int, rows: Sequence[Row]) -> dict[Key, Values]:
    """The provider's bars of each symbol from its first stored one to its last.

    The first depends on when the symbol was first looked at, the last the next look may just move on.
    """
    found: dict[Key, Values] = {}
    for symbol in {row.key.symbol for row in rows}:
        times = [row.key.ts for row in rows if row.key.symbol == symbol]
        start, end = (datetime.fromtimestamp(ts, UTC) for ts in (min(times), max(times) + 60))
        found |= await synthetic(seed, [symbol], Interval.M1, start, end)
    return found


async def require_kept(dsn: str, events: Sequence[history.Event], expected: dict[Key, Values]) -> None:
    """Nothing lost, nothing twice, no step back, and every job done in one attempt."""
    assert check(events, await stored(dsn), expected) == []
    twice = await query(
        dsn,
        "SELECT job_id FROM backfill_attempts WHERE outcome = 'done' GROUP BY job_id HAVING count(*) > 1",
    )
    assert twice == []
    written = await query(dsn, "SELECT sum(rows_written)::bigint FROM backfill_jobs WHERE state = 'done'")
    assert written[0][0] == len(expected)  # every bar was inserted by one job, and by none revised


@asynccontextmanager
async def reading(dsn: str, folder: Path, symbols: Sequence[str]) -> AsyncIterator[None]:
    """Somebody reads the bars of all symbols all the time, and logs what there was and in which revision."""
    log = history.Log(folder, "reader")

    async def read_on() -> None:
        for number in itertools.count():
            symbol = symbols[number % len(symbols)]
            await _read(dsn, log, f"read {number}", symbol)
            await asyncio.sleep(0.05)

    reader = asyncio.create_task(read_on())
    try:
        yield
    finally:
        reader.cancel()
        await asyncio.wait([reader])
        if not reader.cancelled() and (error := reader.exception()):
            raise error


async def _read(dsn: str, log: history.Log, op: str, symbol: str) -> None:
    where = (symbol, "1m", 0, 2**40)
    log.tell("invoke", op, "read", where)
    try:
        rows = await asyncio.wait_for(query(dsn, _VERSIONS, symbol), 5.0)
    except AWAY:
        log.tell("fail", op, "read", where)
    else:
        log.tell("ok", op, "read", where, versions={row["ts"]: row["revision"] for row in rows})


def acknowledged(events: Sequence[history.Event], by: str | None = None) -> int:
    """Writes that the database acknowledged to anybody, or to one process."""
    writes = (event for event in events if event.action == "write" and by in (None, event.process))
    return sum(event.kind == "ok" for event in writes)


def log_folder(parent: Path) -> Path:
    """A folder for an operation log."""
    folder = parent / "history"
    folder.mkdir()
    return folder


async def know(dsn: str, symbols: Sequence[str]) -> None:
    """Put synthetic symbols into the universe."""
    await query(dsn, _KNOWN, list(symbols))


async def enqueue(
    dsn: str, symbols: Sequence[str], interval: Interval, start: datetime, end: datetime, *, bars: int
) -> int:
    """Put synthetic symbols into the universe and ask for their bars in jobs of `bars`; how many jobs."""
    await know(dsn, symbols)
    database = await Database.open(dsn)
    queue = BackfillQueue(database, longest_bars=bars)
    jobs = [len(await queue.enqueue(symbol, interval, start, end)) for symbol in symbols]
    await database.close()
    return sum(jobs)


def open_writes(workers: Fleet, name: str) -> set[str]:
    """Operations of a process that have begun and not ended."""
    events = [event for event in workers.history() if event.process == name]
    return {event.op for event in events if event.kind == "invoke"} - {
        event.op for event in events if event.kind != "invoke"
    }


async def until_acknowledged(workers: Fleet, by: str | None = None) -> None:
    """Until one more write was acknowledged."""
    before = acknowledged(workers.history(), by)

    async def one_more() -> bool:
        return acknowledged(workers.history(), by) > before

    await until(one_more)


async def until_ended(process: psutil.Process, port: int) -> None:
    """Until a server has let go of everything, its port too, which its last thread closes."""

    async def ended() -> bool:
        return not process.is_running() or (process.status() == psutil.STATUS_ZOMBIE and is_free(port))

    await until(ended)
