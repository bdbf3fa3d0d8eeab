"""A store of these tests' own, and a backfill worker in this process that can be started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from cluster.backfill.actor import UniverseCalendar
from cluster.backfill.pool import Pool
from cluster.backfill.worker import Worker
from cluster.clock import SystemClock
from cluster.providers.gateway import Gateway
from cluster.providers.protocol import BarProvider
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database

Working = Callable[[BarProvider], AbstractAsyncContextManager[None]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on a fresh database."""
    database = await Database.open(database_url)
    yield database
    await database.close()


@pytest.fixture
def working(database: Database) -> Working:
    """While the context lasts a backfill worker fetches from the given provider."""

    @asynccontextmanager
    async def working(provider: BarProvider) -> AsyncIterator[None]:
        queue, clock = BackfillQueue(database), SystemClock()
        sources = {provider.name: Gateway(provider, clock)}
        worker = Worker(queue, sources, UniverseCalendar(database), clock)
        pool = Pool("test", queue, worker.run, clock, poll_s=0.05)
        running = asyncio.create_task(pool.run())
        yield
        await pool.drain(10.0)
        await running

    return working
