"""Workers, gateways and collectors killed as Ray actors: Ray makes new ones, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.backfill import actor as backfill
from cluster.backfill.actor import WorkerOptions
from cluster.ingest import actor as ingest
from cluster.ingest.actor import CollectorOptions
from cluster.ingest.cadence import Cadence
from cluster.market.intervals import Interval
from cluster.providers import gateway_actor
from cluster.providers.gateway import GatewayPolicy
from tests.chaos import fleet as fleets
from tests.chaos import history
from tests.chaos.checker import check
from tests.chaos.fleet import between_the_ends, count, outcomes, query, reading, stored, synthetic, until
from tests.chaos.history import Event

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("ray_cluster"),
]

M1 = Interval.M1
START, END = datetime(2024, 3, 4, tzinfo=UTC), datetime(2024, 3, 4, 10, tzinfo=UTC)
SYMBOLS = ("SYN0001", "SYN0002", "SYN0003")
SEED = 7
WITHIN_S = 60.0
PATIENT = GatewayPolicy(timeout_s=WITHIN_S)
WORKER = backfill.actor_name(0)
GATEWAY = gateway_actor.actor_name("synthetic")


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of its own, with the actors of the test; they are gone afterwards."""
    name = f"test-{uuid.uuid4().hex}"
    yield name
    for one in (WORKER, ingest.actor_name(0), GATEWAY):
        with suppress(ValueError):
            ray.kill(ray.get_actor(one, namespace=name), no_restart=True)


def process_id(name: str, namespace: str) -> int:
    """Of an actor, as soon as it answers."""
    handle: Any = ray.get_actor(name, namespace=namespace)
    pid: int = ray.get(handle.__ray_call__.remote(lambda _: os.getpid()), timeout=WITHIN_S)
    return pid


def kill(name: str, namespace: str) -> None:
    """`kill -9` of the process of an actor."""
    os.kill(process_id(name, namespace), signal.SIGKILL)


def everything_tried(symbols: tuple[str, ...]) -> list[Event]:
    """The log of those who keep none: they may have written any bar."""
    whole = (0, 2**40)
    return [Event(f"all {name}", "invoke", "write", "actors", 0, name, "1m", *whole) for name in symbols]


async def test_workers_and_gateways_killed_in_turn_leave_the_provider_s_bars_and_no_job_behind(
    database_url: str, namespace: str, tmp_path: Path
) -> None:
    jobs = 0
    options = {"seed": SEED, "latency_s": 0.3}
    gateway_actor.start("synthetic", options, PATIENT, namespace=namespace)
    how = WorkerOptions(
        database_url=database_url, providers=("synthetic",), concurrency=4, lease_s=3.0, poll_s=0.1
    )
    worker = backfill.start(0, how, namespace=namespace)
    folder = fleets.log_folder(tmp_path)
    async with reading(database_url, folder, SYMBOLS):
        for symbol, names in zip(SYMBOLS, ([WORKER], [GATEWAY], [WORKER, GATEWAY]), strict=True):
            # Asked for before there is work, which on a busy machine may be over when they answer.
            processes = [await asyncio.to_thread(process_id, name, namespace) for name in names]
            done = await count(database_url, "done")
            jobs += await fleets.enqueue(database_url, [symbol], M1, START, END, bars=20)
            await until_working(database_url, done=done + 1)
            for process in processes:
                os.kill(process, signal.SIGKILL)
        await fleets.until_done(database_url, jobs, WITHIN_S)
    events = [*everything_tried(SYMBOLS), *history.read(folder)]
    assert check(events, await stored(database_url), await synthetic(SEED, SYMBOLS, M1, START, END)) == []
    ended = await outcomes(database_url)
    assert ended["done"] == jobs
    assert ended["lease_expired"] >= 1
    await backfill.drain([worker])


async def until_working(dsn: str, *, done: int) -> None:
    """Until jobs run and at least `done` have finished."""

    async def working() -> bool:
        return await count(dsn, "done") >= done and await count(dsn, "leased") > 0

    await until(working, WITHIN_S)


async def test_a_collector_killed_in_the_middle_of_its_looks_leaves_no_bar_out(
    database_url: str, namespace: str, tmp_path: Path, rng: random.Random
) -> None:
    symbols = tuple(f"SYN{number:04d}" for number in range(1, 121))
    await fleets.know(database_url, symbols)
    began = datetime.now(UTC)
    gateway_actor.start("synthetic", {"seed": SEED, "latency_s": 0.1}, PATIENT, namespace=namespace)
    each_second = Cadence("T1", M1, 1.0)
    options = CollectorOptions(database_url, ("synthetic",), (each_second,), batch=10)
    ingest.start(0, options, namespace=namespace)
    folder = fleets.log_folder(tmp_path)
    async with reading(database_url, folder, symbols[:2]):
        for _ in range(4):
            await until_more_bars(database_url, len(symbols))
            await asyncio.sleep(rng.uniform(0.0, 0.3))
            await asyncio.to_thread(kill, ingest.actor_name(0), namespace)
        await until_all_have(database_url, began, len(symbols))
    rows = await stored(database_url)
    events = [*everything_tried(symbols), *history.read(folder)]
    assert check(events, rows, await between_the_ends(SEED, rows)) == []


async def until_more_bars(dsn: str, most: int) -> None:
    """Until somebody has written something new, or all symbols have bars."""
    before = await collected(dsn)

    async def more() -> bool:
        now = await collected(dsn)
        return now > before or now >= most

    await until(more, WITHIN_S)


async def collected(dsn: str) -> int:
    """Symbols that have bars."""
    found: int = (await query(dsn, "SELECT count(DISTINCT symbol) FROM candles_intraday"))[0][0]
    return found


async def until_all_have(dsn: str, moment: datetime, symbols: int) -> None:
    """Until every symbol has the same newest bar, which had closed when the faults began or later."""
    statement = "SELECT symbol, max(ts) AS newest FROM candles_intraday GROUP BY symbol"

    async def level() -> bool:
        rows = await query(dsn, statement)
        newest = {row["newest"] for row in rows}
        return len(rows) == symbols and len(newest) == 1 and newest.pop() >= moment - timedelta(minutes=2)

    await until(level, WITHIN_S)
