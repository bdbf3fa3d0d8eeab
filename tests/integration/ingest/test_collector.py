"""Collectors of two clusters on one database, over a real Valkey."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from redis.asyncio import Redis

from cluster import metrics
from cluster.clock import SystemClock
from cluster.errors import StorageError
from cluster.ingest.cadence import Cadence
from cluster.ingest.claims import Claim, Claims, scope_of
from cluster.ingest.collector import Collector
from cluster.ingest.sweep import Sweeper
from cluster.market.intervals import Interval
from cluster.storage import sweeps
from cluster.storage.database import Database
from cluster.storage.sweeps import Sweep
from tests.integration.ingest.market import M1, Named, sweeper, watch

pytestmark = [pytest.mark.postgres, pytest.mark.valkey]

EACH_SECOND = Cadence("T1", Interval.M1, 1.0)
NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey_url)
    yield client
    await client.aclose()


def a_scope() -> str:
    return uuid.uuid4().hex


def counted(outcome: str) -> float:
    labels = {"tier": "T1", "interval": "1m", "outcome": outcome}
    return metrics.REGISTRY.get_sample_value("collection_sweeps_total", labels) or 0.0


class Recorded:
    """What the looks of several collectors came to."""

    def __init__(self) -> None:
        self.sweeps: list[Sweep] = []

    async def __call__(self, sweep: Sweep) -> None:
        self.sweeps.append(sweep)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.sweeps) < count:  # noqa: ASYNC110 - what is waited for is time
                await asyncio.sleep(0.02)

    def numbers(self) -> Counter[int]:
        return Counter(EACH_SECOND.number(each.next_run_at, 0.5) for each in self.sweeps)


class Listening(Claims):
    """Remembers what the collectors were told."""

    def __init__(self, redis: Redis, scope: str) -> None:
        super().__init__(redis, scope)
        self.heard = Counter[Claim]()

    async def claim(self, cadence: Cadence, number: int) -> Claim:
        told = await super().claim(cadence, number)
        self.heard[told] += 1
        return told


@asynccontextmanager
async def running(*collectors: Collector) -> AsyncIterator[None]:
    lives = [asyncio.create_task(each.run()) for each in collectors]
    try:
        yield
    finally:
        for each in collectors:
            each.end()
        await asyncio.wait_for(asyncio.gather(*lives), 30)


async def test_two_clusters_on_one_database_do_each_look_once(database: Database, redis: Redis) -> None:
    await watch(database, "SYN0001")
    clock, record, claims = SystemClock(), Recorded(), Listening(redis, a_scope())
    two = [
        Collector(sweeper(database, clock, Named("a", clock)), record, [EACH_SECOND], clock, claims)
        for _ in range(2)
    ]
    async with running(*two):
        await record.until(4)
    assert set(record.numbers().values()) == {1}
    assert claims.heard["ours"] == len(record.sweeps)
    assert claims.heard["theirs"] + claims.heard["done"] >= 1


async def test_without_redis_everybody_looks_unless_that_is_forbidden(database: Database) -> None:
    clock, record = SystemClock(), Recorded()
    away = Redis.from_url(NOWHERE)
    alone, failed = counted("alone"), counted("failed")
    make = partial(Collector, sweeper(database, clock), record, [EACH_SECOND], clock, Claims(away, a_scope()))
    async with running(make()):
        await record.until(2)
    assert counted("alone") - alone >= 2
    async with running(make(locally=False)):
        async with asyncio.timeout(60):
            while counted("failed") == failed:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert counted("alone") - alone == len(record.sweeps)
    await away.aclose()


async def test_a_look_whose_collector_died_is_done_by_another_when_its_claim_ends(redis: Redis) -> None:
    scope, cadence = a_scope(), Cadence("T1", Interval.M1, 0.2)
    dead, heir = Claims(redis, scope), Claims(redis, scope)
    assert await dead.claim(cadence, 7) == "ours"
    assert await heir.claim(cadence, 7) == "theirs"
    async with asyncio.timeout(30):
        while await heir.claim(cadence, 7) != "ours":  # noqa: ASYNC110 - the claim ends in Valkey
            await asyncio.sleep(0.02)
    await heir.done(cadence, 7)
    assert await dead.claim(cadence, 7) == "done"
    assert await dead.claim(cadence, 8) == "ours"


async def test_other_databases_tiers_and_shards_have_looks_of_their_own(
    database: Database, database_url: str, redis: Redis
) -> None:
    other = await Database.open(database_url)
    scopes = [
        await scope_of(database, 0, 1),
        await scope_of(database, 0, 2),
        await scope_of(database, 1, 2),
        await scope_of(other, 0, 1),
    ]
    await other.close()
    assert len(set(scopes)) == 4
    assert await scope_of(database, 0, 1) == scopes[0]
    prefix, number = a_scope(), int(datetime.now(UTC).timestamp())
    for scope in scopes:
        for cadence in (Cadence("T0", Interval.M1, 60.0), Cadence("T1", Interval.M1, 60.0)):
            assert await Claims(redis, prefix + scope).claim(cadence, number) == "ours"


async def test_a_database_has_a_name_for_an_ordinary_role_whatever_it_may_ask(
    database: Database, database_url: str
) -> None:
    ordinary, barred = f"ordinary_{uuid.uuid4().hex[:8]}", f"barred_{uuid.uuid4().hex[:8]}"
    every = [await scope_of(database, 0, 1)]
    for owner in (database, await Database.open(database_url)):
        for role in (ordinary, barred):
            if owner is database:
                await owner.pool.execute(f"CREATE ROLE {role}")
            await owner.pool.execute(f"GRANT SELECT ON schema_migrations TO {role}")
            control = f"EXECUTE ON FUNCTION pg_control_system() {'FROM' if role == barred else 'TO'} PUBLIC"
            await owner.pool.execute(f"{'REVOKE' if role == barred else 'GRANT'} {control}")
            told = await scope_as(role, owner.dsn)
            assert await scope_as(role, owner.dsn) == told
            every.append(told)
        await owner.pool.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
        await owner.pool.execute(f"DROP OWNED BY {ordinary}, {barred}")
        if owner is not database:
            await owner.close()
    await database.pool.execute(f"DROP ROLE {ordinary}, {barred}")
    assert every[0] == every[1]  # who may ask hears the same
    assert len(set(every)) == 4


async def scope_as(role: str, dsn: str) -> str:
    mark = "&" if "?" in dsn else "?"
    one = await Database.open(f"{dsn}{mark}role={role}")
    try:
        return await scope_of(one, 0, 1)
    finally:
        await one.close()


class Broken(Sweeper):
    """A database that is away for the first look, as one of its tasks finds out."""

    looks = 0
    most_cancelled = 0
    """Of the task that follows the cadence."""

    async def graces_s(self, interval: Interval) -> list[float]:
        task = asyncio.current_task()
        assert task is not None
        self.most_cancelled = max(self.most_cancelled, task.cancelling())
        return await super().graces_s(interval)

    async def sweep(self, cadence: Cadence, until: datetime) -> Sweep:
        self.looks += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(self._see())
        return await super().sweep(cadence, until)

    async def _see(self) -> None:
        if self.looks == 1:
            raise StorageError("away")


async def test_a_look_that_fails_is_followed_by_the_next(database: Database) -> None:
    clock, record = SystemClock(), Recorded()
    failed = counted("failed")
    async with running(Collector(Broken(database, {}, clock), record, [EACH_SECOND], clock)):
        await record.until(1)
    assert counted("failed") - failed == 1


async def test_a_look_that_failed_is_done_again_before_the_next_is_due(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ingest.collector._RETRY_S", 0.05)
    clock, record, daily = SystemClock(), Recorded(), Cadence("T1", Interval.D1, 21_600.0)
    one = Broken(database, {}, clock)
    async with running(Collector(one, record, [daily], clock)):
        await record.until(1)
    assert (one.looks, one.most_cancelled) == (2, 0)  # else Python 3.11.2 ends it without a word


async def test_a_look_is_kept_from_others_as_long_as_it_takes(redis: Redis) -> None:
    scope, cadence = a_scope(), Cadence("T1", Interval.M1, 0.6)
    slow, other = Claims(redis, scope), Claims(redis, scope)
    assert await slow.claim(cadence, 7) == "ours"
    holding = asyncio.create_task(slow.hold(cadence, 7))
    for _ in range(20):
        await asyncio.sleep(0.1)
        assert await other.claim(cadence, 7) == "theirs"
    holding.cancel()
    await slow.done(cadence, 7)
    assert await other.claim(cadence, 7) == "done"


async def test_the_last_look_is_kept_and_its_lag_grows_while_none_follows(database: Database) -> None:
    await watch(database, "SYN0001")
    clock = SystemClock()
    record = partial(sweeps.record, database)
    one = Collector(sweeper(database, clock, Named("a", clock)), record, [EACH_SECOND], clock)
    async with running(one):
        async with asyncio.timeout(60):
            while not await sweeps.last(database):  # noqa: ASYNC110 - it comes from the database
                await asyncio.sleep(0.02)
    (last,) = await sweeps.last(database)
    assert (last.tier, last.interval, last.shard, last.symbols, last.failed) == ("T1", Interval.M1, 0, 1, 0)
    assert last.lag_s(2.0, last.next_run_at) == 2.0
    assert last.lag_s(2.0, last.next_run_at + timedelta(seconds=90)) == 92.0
    assert last.lag_s(None, last.next_run_at + timedelta(seconds=90)) == 90.0
    assert last.lag_s(None, last.next_run_at) is None


async def test_a_look_that_was_overtaken_is_not_kept_as_the_last(database: Database) -> None:
    async def kept_after(started_at: datetime) -> datetime:
        await sweeps.record(
            database,
            Sweep("T1", M1, 0, 60.0, 0.5, started_at, started_at, started_at, 1, 0, 0, 0, 1, 0.5, 0.5),
        )
        return (await sweeps.last(database))[0].started_at

    early, late = datetime(2025, 10, 8, 12, tzinfo=UTC), datetime(2025, 10, 8, 13, tzinfo=UTC)
    assert await kept_after(late) == late
    assert await kept_after(early) == late
    future = datetime.now(UTC) + timedelta(hours=1)
    assert await kept_after(future) == future
    assert await kept_after(late) == late  # the clock of that one was wrong


async def test_what_is_no_more_collected_is_forgotten(database: Database) -> None:
    moment = datetime(2025, 10, 8, tzinfo=UTC)
    for tier, shard in (("T0", 0), ("T1", 0), ("T1", 1), ("T1", 2)):
        await sweeps.record(
            database,
            Sweep(tier, Interval.M1, shard, 60.0, 0.5, moment, moment, moment, 1, 0, 0, 0, 1, 0.5, 0.5),  # type: ignore[arg-type]
        )
    await sweeps.forget_others(database, 0, 2, [("T1", Interval.M1)])
    assert [(each.tier, each.shard) for each in await sweeps.last(database)] == [("T1", 0), ("T1", 1)]
