"""A job without a provider: its session's source, instrument and calendar decide who is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from cluster import metrics
from cluster.backfill.route import Route
from cluster.backfill.worker import Worker
from cluster.clock import FakeClock
from cluster.errors import ProviderDown
from cluster.market import bars, calendars
from cluster.market.instants import Instants, to_instant
from cluster.market.intervals import Interval
from cluster.market.symbols import Instrument
from cluster.providers.protocol import Capabilities
from cluster.providers.router import Router, Rule
from cluster.providers.stats import Standing
from cluster.storage import bars as stored_bars
from cluster.storage import universe
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.database import Database

M1 = Interval.M1
T = datetime(2025, 10, 8, 14, tzinfo=UTC)
NOW = datetime(2025, 10, 9, tzinfo=UTC)


def table(symbol: str, source: str, start: datetime, count: int) -> pa.Table:
    ts = to_instant(start) + np.arange(count).astype("timedelta64[m]")
    flat = np.full(count, 11.0)
    return bars.from_columns(symbol, M1, ts, flat, flat, flat, flat, flat, source=source)


class Source:
    def __init__(self, name: str, *, down: bool = False) -> None:
        self._name, self._down = name, down

    async def standing(self) -> Standing:
        return Standing(self._name, Capabilities(frozenset({M1}), symbols=None, page_bars=1_000))

    async def fetch(self, symbol: str, interval: Interval, start: datetime, end: datetime) -> pa.Table:
        if self._down:
            raise ProviderDown("reset")
        return table(symbol, self._name, start, (end - start) // timedelta(minutes=1))


async def every_minute(symbol: str, interval: Interval, start: datetime, end: datetime) -> Instants | None:
    return calendars.expected_opens("24/7", interval, start, end)


async def sources_after(
    database: Database, queue: BackfillQueue, sources: dict[str, Source], rule: Rule = "announce"
) -> tuple[str, list[str]]:
    """The outcome of a job of ten minutes from `T` on, and the sources of the stored bars in their order."""
    await queue.enqueue("BTC-USD", M1, T, T + timedelta(minutes=10))
    (lease,) = await queue.claim("w", 1)
    clock = FakeClock(NOW)
    route = Route(database, Router(sources, clock, rule))
    result = await Worker(queue, sources, every_minute, clock, route).run(lease)
    rows = await database.pool.fetch("SELECT source FROM candles_intraday ORDER BY ts")
    return result, [row["source"] for row in rows]


async def begin_with(database: Database, source: str, before: timedelta) -> None:
    await universe.add(database, Instrument("BTC-USD", "BINANCE", "crypto", "24/7"))
    async with database.transaction() as connection:
        await stored_bars.write(connection, table("BTC-USD", source, T - before, 2))


def source_changes(before: str, after: str) -> float:
    return metrics.source_changes_total.labels(before, after)._value.get()  # type: ignore[no-any-return]


@pytest.mark.postgres
async def test_a_session_goes_on_with_the_source_of_its_first_bars(
    database: Database, queue: BackfillQueue
) -> None:
    await begin_with(database, "second", timedelta(hours=5))
    sources = {"first": Source("first"), "second": Source("second")}
    assert await sources_after(database, queue, sources) == ("done", ["second"] * 12)


@pytest.mark.postgres
async def test_yesterdays_source_does_not_bind_todays_session(
    database: Database, queue: BackfillQueue
) -> None:
    await begin_with(database, "second", timedelta(hours=15))
    sources = {"first": Source("first"), "second": Source("second")}
    assert await sources_after(database, queue, sources) == ("done", ["second"] * 2 + ["first"] * 10)


@pytest.mark.postgres
async def test_a_change_of_source_is_in_the_data(database: Database, queue: BackfillQueue) -> None:
    await begin_with(database, "second", timedelta(hours=5))
    sources = {"first": Source("first"), "second": Source("second", down=True)}
    assert await sources_after(database, queue, sources) == ("done", ["second"] * 2 + ["first"] * 10)


@pytest.mark.postgres
async def test_by_the_rule_never_the_job_waits_for_the_source_of_its_session(
    database: Database, queue: BackfillQueue
) -> None:
    await begin_with(database, "second", timedelta(hours=5))
    sources = {"first": Source("first"), "second": Source("second", down=True)}
    assert await sources_after(database, queue, sources, "never") == ("retried", ["second"] * 2)


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("rule", "tomorrow"), [("never", ["second"] * 2), ("announce", ["second"] * 2 + ["first"] * 3)]
)
async def test_by_the_rule_never_a_job_leaves_its_later_sessions_to_who_began_them(
    database: Database, queue: BackfillQueue, rule: Rule, tomorrow: list[str]
) -> None:
    midnight = T.replace(hour=0) + timedelta(days=1)
    await universe.add(database, Instrument("BTC-USD", "BINANCE", "crypto", "24/7"))
    async with database.transaction() as connection:
        for source, begins in (("first", T), ("second", midnight)):
            await stored_bars.write(connection, table("BTC-USD", source, begins, 2))
    await queue.enqueue("BTC-USD", M1, midnight - timedelta(minutes=5), midnight + timedelta(minutes=5))
    (lease,) = await queue.claim("w", 1)
    sources = {"first": Source("first"), "second": Source("second", down=True)}
    clock, from_ = FakeClock(NOW + timedelta(days=1)), midnight - timedelta(minutes=5)
    route = Route(database, Router(sources, clock, rule))
    before = source_changes("second", "first")
    assert await Worker(queue, sources, every_minute, clock, route).run(lease) == "done"
    sql = "SELECT ts, source FROM candles_intraday WHERE ts >= $1 ORDER BY ts"
    rows = await database.pool.fetch(sql, from_)
    assert [row["source"] for row in rows if row["ts"] < midnight] == ["first"] * 5
    assert [row["source"] for row in rows if row["ts"] >= midnight] == tomorrow
    holes = await database.pool.fetch("SELECT start_ts, end_ts, cause FROM known_gaps")
    rejected = (midnight, midnight + timedelta(minutes=5), "rejected")
    assert [tuple(hole) for hole in holes] == ([rejected] if rule == "never" else [])
    assert source_changes("second", "first") - before == (0 if rule == "never" else 1)
