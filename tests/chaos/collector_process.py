"""A collector in a process without Ray: the parts of the collector actor, and a log of what it writes."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from multiprocessing.sharedctypes import Synchronized

import pyarrow as pa

from cluster import logs, metrics
from cluster.ingest.cadence import Cadence
from cluster.ingest.collector import Collector
from cluster.ingest.sweep import Sweeper
from cluster.market.intervals import Interval
from cluster.providers.gateway_actor import GatewayActor
from cluster.storage import copy_format, copy_stream, sweeps
from cluster.storage.bars import WriteResult
from cluster.storage.copy_format import Column
from cluster.storage.database import Connection, Database
from tests.chaos.history import Kind, Log
from tests.chaos.worker_process import Orders, SkewedClock

EACH_SECOND = Cadence("T1", Interval.M1, 1.0)


@dataclass(frozen=True)
class CollectorOrders(Orders):
    """What a collector process is told; it collects the minutes of T1 each second, alone."""

    batch: int = 20
    idle_s: float = 60.0
    """After which the server ends a transaction of a client that says nothing between two statements."""
    copy_pause_s: float = 0.0
    """How long a COPY waits after its first bytes, to be struck there."""


class SlowDatabase(Database):
    """A finished transaction waits before its commit, to be struck there."""

    commit_pause_s = 0.0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """See `Database.transaction`."""
        async with super().transaction() as connection:
            yield connection
            await asyncio.sleep(self.commit_pause_s)


class LoggedSweeper(Sweeper):
    """What a batch writes of one symbol is an operation of the log."""

    def __init__(
        self, database: Database, gateway: GatewayActor, clock: SkewedClock, orders: CollectorOrders
    ) -> None:
        super().__init__(database, {"synthetic": gateway}, clock, batch=orders.batch)
        self._log, self._name, self._numbers = Log(orders.folder, orders.name), orders.name, itertools.count()

    async def _written(self, table: pa.Table, asked_at: datetime | None) -> WriteResult | None:
        number = next(self._numbers)
        self._tell("invoke", number, table)
        result = await super()._written(table, asked_at)
        self._tell("ok" if result else "info", number, table)
        return result

    def _tell(self, kind: Kind, number: int, table: pa.Table) -> None:
        spans = table.group_by("symbol").aggregate([("ts", "min"), ("ts", "max")])
        for each in spans.to_pylist():
            start, end = int(each["ts_min"].timestamp()), int(each["ts_max"].timestamp()) + 60
            where = (each["symbol"], "1m", start, end)
            self._log.tell(kind, f"{self._name} {number} {each['symbol']}", "write", where)


def collect(orders: CollectorOrders, clock_offset_s: Synchronized[float]) -> None:
    """Collect until SIGTERM, then leave behind how many bars were counted; what a process of its own runs."""
    asyncio.run(_collect(orders, SkewedClock(clock_offset_s)))


async def _collect(orders: CollectorOrders, clock: SkewedClock) -> None:
    logs.configure("error")
    if orders.copy_pause_s:
        vars(copy_stream)["encode"] = partial(_haltingly, orders.copy_pause_s)
    database = await SlowDatabase.open(
        orders.dsn,
        max_size=4,
        idle_in_transaction_timeout_s=orders.idle_s,
        lock_timeout_s=orders.lock_timeout_s,
        frozen_after_s=orders.frozen_after_s,
    )
    SlowDatabase.commit_pause_s = orders.commit_pause_s
    gateway = GatewayActor("synthetic", orders.providers["synthetic"], orders.policy, None)
    sweeper = LoggedSweeper(database, gateway, clock, orders)
    collector = Collector(sweeper, partial(sweeps.record, database), [EACH_SECOND], clock)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, collector.end)
    await collector.run()
    counted = metrics.REGISTRY.get_sample_value("bars_written_total", {"source": "synthetic"}) or 0
    (orders.folder / f"{orders.name}.counted").write_text(str(int(counted)))


async def _haltingly(pause_s: float, columns: Sequence[Column], rows: int) -> AsyncIterator[bytes]:
    async for part in copy_format.encode(columns, rows):
        yield part
        await asyncio.sleep(pause_s)
