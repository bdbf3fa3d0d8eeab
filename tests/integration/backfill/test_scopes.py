"""Limits and pauses of providers, beside those of the tiers: strict, and none hides another."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from asyncpg.connection import LoggedQuery

from cluster.errors import LeaseLost, RateLimited
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.storage.backfill_enqueue import Wanted, enqueue_many
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import LONGEST_PAUSE, Lease
from cluster.storage.database import Database
from tests.integration.backfill.queue_calls import SHORT_S, finish

pytestmark = pytest.mark.postgres

M1 = Interval.M1
T = datetime(2025, 10, 8, 14, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = Span(T, T + timedelta(hours=1))


async def add(
    queue: BackfillQueue, jobs: int, *, provider: str | None = None, tier: Tier = "T2", name: str = "S"
) -> None:
    """As many jobs, each of a symbol of its own."""
    await queue.enqueue_many([Wanted(f"{name}{n}", M1, HOUR, tier, provider) for n in range(jobs)])


def asked(leases: list[Lease]) -> list[str | None]:
    return sorted((lease.provider for lease in leases), key=str)


async def now(database: Database) -> datetime:
    moment: datetime = await database.pool.fetchval("SELECT clock_timestamp()")
    return moment


def waits_s(limit: RateLimited) -> float:
    """How long, by the clock of whoever is told."""
    return (limit.retry_at - datetime.now(UTC)).total_seconds()


class TestLimits:
    async def test_a_provider_at_its_limit_gets_no_more_jobs_and_hides_no_others(
        self, database: Database
    ) -> None:
        queue = BackfillQueue(database, provider_limits={"a": 2})
        await add(queue, 500, provider="a", name="A")
        await add(queue, 1, provider="b", tier="T3", name="B")
        await add(queue, 1, tier="T3", name="R")
        assert asked(await queue.claim("w", 8)) == [None, "a", "a", "b"]
        assert await queue.claim("w", 8) == []

    async def test_a_provider_has_one_limit_over_all_tiers(self, database: Database) -> None:
        queue = BackfillQueue(database, limits={"T0": 2}, provider_limits={"a": 3})
        for tier in ("T0", "T1", "T2"):
            await add(queue, 5, provider="a", tier=tier, name=tier)
        leases = await queue.claim("w", 16)
        while more := await queue.claim("w", 16):
            leases += more
        assert Counter(lease.tier for lease in leases)["T0"] <= 2
        assert len(leases) == 3

    async def test_a_slot_is_free_again_when_its_job_ends_or_its_lease_does(self, database: Database) -> None:
        queue = BackfillQueue(database, provider_limits={"a": 1})
        await add(queue, 3, provider="a")
        (first,) = await queue.claim("w", 8)
        await finish(queue, first, 0)
        (second,) = await queue.claim("w", 8)
        assert await queue.claim("w", 8) == []
        await database.pool.execute("UPDATE backfill_jobs SET lease_until = now() WHERE id = $1", second.id)
        (third,) = await queue.claim("w", 8)
        assert (third.id, third.attempt) == (second.id, 2)

    @pytest.mark.parametrize(("tiers", "providers"), [({"T2": 2}, {}), ({}, {"a": 1}), ({"T2": 2}, {"a": 1})])
    async def test_a_holder_that_still_writes_after_its_lease_keeps_its_place(
        self, database: Database, tiers: dict[Tier, int], providers: dict[str, int]
    ) -> None:
        short, queue = (
            BackfillQueue(database, lease_s=each, limits=tiers, provider_limits=providers)
            for each in (SHORT_S, 60.0)
        )
        await add(queue, 1, name="R")
        (routed,) = await queue.claim("w", 1)
        await add(queue, 2, provider="a", name="A")
        (late,) = await short.claim("late", 1)
        async with short.fenced(late) as writing:
            while not await writing.fetchval("SELECT clock_timestamp() > $1", late.lease_until):
                pass
            assert await queue.claim("w", 8) == []
            if providers:
                with pytest.raises(RateLimited):
                    await queue.take_slot(routed, "a")
            await short.complete_many([(late, 0)], writing)
        assert len(await queue.claim("w", 8)) == 1

    async def test_a_routed_job_takes_a_slot_of_the_provider_it_is_routed_to(
        self, database: Database
    ) -> None:
        queue = BackfillQueue(database, provider_limits={"a": 2}, routes=["a"])
        await add(queue, 2, provider="a", name="A")
        await add(queue, 3, name="R")
        leases = await queue.claim("w", 5)
        assert asked(leases) == [None, None, None, "a", "a"]
        routed = [lease for lease in leases if lease.provider is None]
        with pytest.raises(RateLimited, match="provider a has no room"):
            await queue.take_slot(routed[0], "a")
        await finish(queue, next(lease for lease in leases if lease.provider == "a"), 0)
        await queue.take_slot(routed[0], "a")
        await queue.take_slot(routed[0], "a")  # again is once
        with pytest.raises(RateLimited):
            await queue.take_slot(routed[1], "a")
        await queue.take_slot(routed[1], "b")

    async def test_a_zombie_takes_no_slot(self, database: Database) -> None:
        queue = BackfillQueue(database, provider_limits={"a": 2})
        await add(queue, 1)
        (zombie,) = await queue.claim("w", 1)
        await database.pool.execute("UPDATE backfill_jobs SET lease_until = now()")
        with pytest.raises(LeaseLost):
            await queue.take_slot(zombie, "a")

    async def test_routed_jobs_wait_only_while_everybody_is_closed(self, database: Database) -> None:
        one = BackfillQueue(database, provider_limits={"a": 1}, routes=["a"])
        both = BackfillQueue(database, provider_limits={"a": 1}, routes=["a", "b"])
        await add(one, 1, provider="a", name="A")
        await add(one, 2, name="R")
        (lease,) = await BackfillQueue(database, provider_limits={"a": 1}).claim("w", 1)
        assert lease.provider == "a"
        assert await one.claim("w", 1) == []
        assert len(await both.claim("w", 1)) == 1

    async def test_fifty_claimers_never_exceed_any_limit(self, database: Database) -> None:
        """Counted after every claim and every slot, in a snapshot of its own."""
        limits: dict[Tier, int] = {"T0": 3}
        queue = BackfillQueue(database, limits=limits, provider_limits={"a": 5, "b": 2}, routes=["a", "b"])
        await add(queue, 120, provider="a", name="A")
        await add(queue, 60, provider="b", tier="T1", name="B")
        await add(queue, 60, provider="a", tier="T0", name="U")
        await add(queue, 60, tier="T3", name="R")
        peaks: Counter[str] = Counter()
        left = 300

        async def watch() -> None:
            rows = await database.pool.fetch(
                "SELECT tier, asked, count(*) AS n FROM backfill_jobs WHERE state = 'leased' GROUP BY 1, 2"
            )
            for scope in ("tier", "asked"):
                running: Counter[str] = Counter()
                for row in rows:
                    running[str(row[scope])] += row["n"]
                for name, count in running.items():
                    peaks[name] = max(peaks[name], count)

        async def work(number: int) -> None:
            nonlocal left
            while left:
                for lease in await queue.claim(f"w{number}", 3):
                    await watch()
                    if lease.provider is None:
                        try:
                            await queue.take_slot(lease, "b")
                        except RateLimited:
                            await queue.release(lease)
                            continue
                        await watch()
                    await finish(queue, lease, 0)
                    left -= 1
                await asyncio.sleep(0)

        async with asyncio.timeout(120):
            await asyncio.gather(*(work(number) for number in range(50)))
        assert (peaks["T0"], peaks["a"], peaks["b"]) == (3, 5, 2)


class TestPauses:
    async def test_a_paused_provider_keeps_all_its_jobs_and_touches_none(self, database: Database) -> None:
        queue = BackfillQueue(database)
        await add(queue, 50, provider="a", name="A")
        await add(queue, 1, provider="b", name="B")
        await queue.pause("a", 60.0, "429")
        assert asked(await queue.claim("w", 8)) == ["b"]
        changed = await database.pool.fetchval(
            "SELECT count(*) FROM backfill_jobs WHERE provider = 'a' AND (attempt > 0 OR reason IS NOT NULL)"
        )
        assert changed == 0
        await database.pool.execute("UPDATE backfill_pauses SET until = now()")
        assert asked(await queue.claim("w", 8)) == ["a"] * 8

    async def test_a_longer_pause_stays_and_none_is_endless(self, database: Database) -> None:
        queue = BackfillQueue(database)
        begun = await now(database)
        await queue.pause("a", 60.0, "first")
        ended = await now(database)
        await queue.pause("a", 30.0, "shorter")
        (row,) = await database.pool.fetch("SELECT * FROM backfill_pauses")
        assert begun + MINUTE <= row["until"] <= ended + MINUTE
        assert row["reason"] == "first"
        await queue.pause("a", 86_400.0, "banned for apikey=S3CRET")
        (row,) = await database.pool.fetch("SELECT * FROM backfill_pauses")
        assert begun + LONGEST_PAUSE <= row["until"] <= await now(database) + LONGEST_PAUSE
        assert row["reason"] == "banned for apikey=***"

    async def test_a_pause_holds_for_those_with_the_same_key_and_not_for_others(
        self, database: Database
    ) -> None:
        old, new = ({"a": f"a-{digest}", "b": "b"} for digest in ("0ld", "n3w"))
        before, after, beside = (
            BackfillQueue(database, accounts=accounts, routes=["a"]) for accounts in (old, new, old)
        )
        await add(before, 3, provider="a", name="A")
        await add(before, 1)
        await before.pause("a", 60.0, "bad key")
        assert await beside.claim("w", 8) == []
        leases = await after.claim("w", 8)
        assert asked(leases) == [None, "a", "a", "a"]
        routed = next(lease for lease in leases if lease.provider is None)
        await after.take_slot(routed, "a")
        with pytest.raises(RateLimited) as refused:
            await beside.take_slot(routed, "a")
        assert 30 < waits_s(refused.value) <= 60

    async def test_who_counts_by_address_is_paused_for_all(self, database: Database) -> None:
        mine, theirs = BackfillQueue(database, accounts={"a": "a"}), BackfillQueue(database)
        await add(mine, 1, provider="a")
        await mine.pause("a", 60.0, "banned")
        assert await theirs.claim("w", 1) == []

    async def test_a_routed_job_learns_when_its_provider_is_back(self, database: Database) -> None:
        queue = BackfillQueue(database)
        await add(queue, 1)
        (lease,) = await queue.claim("w", 1)
        await queue.pause("a", 60.0, "429")
        with pytest.raises(RateLimited) as refused:
            await queue.take_slot(lease, "a")
        assert 30 < waits_s(refused.value) <= 60
        await queue.take_slot(lease, "b")


class TestAgeing:
    @pytest.mark.parametrize("limits", [{}, {"T0": 2, "T3": 1}])
    async def test_t3_is_served_although_more_t0_comes_than_can_be_done(
        self, database: Database, limits: dict[Tier, int]
    ) -> None:
        """Four T0 jobs a minute, two are done: T3 is next after the T0 of its first 45 minutes."""
        queue = BackfillQueue(database, limits=limits)
        await add(queue, 1, tier="T3", name="OLD")
        virtual = await now(database)
        await database.pool.execute("UPDATE backfill_jobs SET due = $1", virtual + timedelta(minutes=45))
        for minute in range(95):
            await add(queue, 4, tier="T0", name=f"N{minute}X")
            await database.pool.execute(
                "UPDATE backfill_jobs SET due = $1 WHERE symbol LIKE $2",
                virtual + timedelta(minutes=minute), f"N{minute}X%",
            )  # fmt: skip
            leases = await queue.claim("w", 2)
            for lease in leases:
                await finish(queue, lease, 0)
            if any(lease.tier == "T3" for lease in leases):
                break
        assert minute <= 92


class TestMany:
    async def test_ten_thousand_requests_are_one_transaction_and_again_the_same_jobs(
        self, database: Database, queue: BackfillQueue
    ) -> None:
        days = [Span(T + timedelta(days=n), T + timedelta(days=n, hours=1)) for n in range(100)]
        wanted = [Wanted(f"S{n % 100}", M1, days[n // 100], "T2", None) for n in range(10_000)]
        jobs = await queue.enqueue_many(wanted)
        assert len({job for (job,) in jobs}) == 10_000
        assert await queue.enqueue_many(wanted) == jobs
        assert await database.pool.fetchval("SELECT count(DISTINCT enqueued_at) FROM backfill_jobs") == 1

    async def test_the_server_hears_of_a_large_request_part_by_part(
        self, database: Database, queue: BackfillQueue
    ) -> None:
        """It ends a transaction that says nothing for ten seconds."""
        wanted = [Wanted(f"S{n}", M1, HOUR, "T2", None) for n in range(4_001)]
        sizes: list[int] = []

        def note(query: LoggedQuery) -> None:
            if "INSERT" in query.query:
                sizes.append(len(query.args[0]))

        async with database.transaction() as connection:
            connection.add_query_logger(note)
            jobs = await enqueue_many(connection, wanted, queue.rules)
            connection.remove_query_logger(note)
        assert sizes == [2_000, 2_000, 1]
        assert await queue.enqueue_many(wanted) == jobs

    async def test_requests_of_one_batch_join_each_other_and_what_is_there(
        self, database: Database, queue: BackfillQueue
    ) -> None:
        def minutes(first: int, after: int, tier: Tier = "T2") -> Wanted:
            span = Span(T + timedelta(minutes=first), T + timedelta(minutes=after))
            return Wanted("AAPL", M1, span, tier, None)

        (there,) = await queue.enqueue("AAPL", M1, *minutes(20, 30).span, tier="T3")
        (leased,) = await queue.enqueue("MSFT", M1, *minutes(0, 10).span)
        (lease,) = [one for one in await queue.claim("w", 2) if one.symbol == "MSFT"]
        await database.pool.execute("UPDATE backfill_jobs SET state = 'ready', lease_token = NULL, "
                                    "lease_until = NULL WHERE symbol = 'AAPL'")  # fmt: skip
        answers = await queue.enqueue_many(
            [minutes(0, 10), minutes(10, 20, "T0"), minutes(25, 40), minutes(100, 110),
             Wanted("MSFT", M1, minutes(5, 15).span, "T2", None)]
        )  # fmt: skip
        assert answers[:3] == [(there.id,)] * 3
        grown = await queue.get(there.id)
        assert grown is not None
        assert (grown.start, grown.end, grown.tier) == (*minutes(0, 40).span, "T0")
        assert answers[4][-1] == leased.id == lease.id
        states = await database.pool.fetch("SELECT symbol, state, count(*) FROM backfill_jobs GROUP BY 1, 2")
        assert {tuple(row) for row in states} == {
            ("AAPL", "ready", 2), ("MSFT", "ready", 1), ("MSFT", "leased", 1),
        }  # fmt: skip
