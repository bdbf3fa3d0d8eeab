"""The backfill queue on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from cluster.errors import InputError, LeaseLost
from cluster.market.intervals import Interval
from cluster.storage.backfill_jobs import BackfillQueue
from cluster.storage.backfill_records import JobStatus, Lease
from cluster.storage.database import Connection, Database

pytestmark = pytest.mark.postgres

M1 = Interval.M1
T = datetime(2025, 10, 8, 14, tzinfo=UTC)
SHORT_S = 0.15


def minute(number: int) -> datetime:
    return T + timedelta(minutes=number)


def span(job: JobStatus) -> tuple[int, int]:
    """Range of a job in minutes after `T`."""
    return int((job.start - T).total_seconds() // 60), int((job.end - T).total_seconds() // 60)


async def add(
    queue: BackfillQueue, first: int = 0, after: int = 10, *, symbol: str = "AAPL", tier: str = "T2"
) -> list[JobStatus]:
    return await queue.enqueue(symbol, M1, minute(first), minute(after), tier=tier)  # type: ignore[arg-type]


async def waiting_request(
    blocker: Connection, queue: BackfillQueue, first: int, after: int
) -> asyncio.Task[list[JobStatus]]:
    """A request that has come as far as a row that the transaction of `blocker` holds."""
    request = asyncio.create_task(add(queue, first, after))
    while not await blocker.fetchval(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')"
    ):
        assert not request.done()
    return request


async def claim_one(queue: BackfillQueue, worker: str = "w") -> Lease:
    (lease,) = await queue.claim(worker, 1)
    return lease


async def states(database: Database) -> list[tuple[str, int, int]]:
    """State and range of all rows but merged ones, in minutes after `T`."""
    rows = await database.pool.fetch(
        "SELECT state, start_ts, end_ts FROM backfill_jobs WHERE state <> 'merged' ORDER BY start_ts"
    )
    return [
        (
            row["state"],
            int((row["start_ts"] - T).total_seconds() // 60),
            int((row["end_ts"] - T).total_seconds() // 60),
        )
        for row in rows
    ]


async def expire(database: Database, lease: Lease) -> None:
    """Let the lease end now, without waiting for it."""
    await database.pool.execute(
        "UPDATE backfill_jobs SET lease_until = clock_timestamp() WHERE id = $1", lease.id
    )


async def outcomes(queue: BackfillQueue, job: int) -> list[tuple[int, str | None, str | None]]:
    return [(one.attempt, one.outcome, one.message) for one in await queue.attempts(job)]


class TestEnqueue:
    async def test_a_new_range_is_one_ready_job(self, queue: BackfillQueue) -> None:
        (job,) = await add(queue, tier="T1")
        assert (job.state, job.attempt, job.tier, span(job)) == ("ready", 0, "T1", (0, 10))
        assert await queue.get(job.id) == job

    async def test_a_covered_range_answers_the_existing_job(self, queue: BackfillQueue) -> None:
        (job,) = await add(queue, 0, 60)
        assert [again.id for again in await add(queue, 10, 20)] == [job.id]

    async def test_a_thousand_parallel_requests_for_one_range_leave_one_row(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        answers = await asyncio.gather(*(add(queue) for _ in range(1_000)))
        assert len({job.id for jobs in answers for job in jobs}) == 1
        assert await states(database) == [("ready", 0, 10)]

    async def test_overlapping_and_adjacent_ready_ranges_become_one(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        (first,) = await add(queue, 0, 10)
        (second,) = await add(queue, 20, 30)
        (joined,) = await add(queue, 10, 25)
        assert await states(database) == [("ready", 0, 30)]
        assert joined.id == first.id
        assert await queue.get(second.id) == joined

    async def test_a_leased_range_is_not_queued_again_and_not_changed(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        await add(queue, 10, 20)
        lease = await claim_one(queue)
        jobs = await add(queue, 0, 30)
        assert [(span(job), job.state) for job in jobs] == [
            ((0, 10), "ready"),
            ((10, 20), "leased"),
            ((20, 30), "ready"),
        ]
        assert jobs[1].id == lease.id
        assert await states(database) == [("ready", 0, 10), ("leased", 10, 20), ("ready", 20, 30)]

    async def test_a_job_never_gets_longer_than_the_longest(self, database: Database) -> None:
        queue = BackfillQueue(database, longest_bars=10)
        assert [span(job) for job in await add(queue, 0, 25)] == [(0, 10), (10, 20), (20, 25)]
        await add(queue, 25, 28)
        await add(queue, 28, 33)
        assert await states(database) == [
            ("ready", 0, 10),
            ("ready", 10, 20),
            ("ready", 20, 28),
            ("ready", 28, 33),
        ]

    async def test_other_symbols_intervals_and_providers_stay_apart(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        await add(queue)
        await add(queue, symbol="MSFT")
        await queue.enqueue("AAPL", Interval.M5, minute(0), minute(10))
        await queue.enqueue("AAPL", M1, minute(0), minute(10), provider="binance")
        assert len(await states(database)) == 4

    async def test_a_more_urgent_request_raises_the_tier_of_the_waiting_job(
        self, queue: BackfillQueue
    ) -> None:
        await add(queue, tier="T3")
        assert [job.tier for job in await add(queue, tier="T0")] == ["T0"]
        assert [job.tier for job in await add(queue, tier="T2")] == ["T0"]

    async def test_a_grown_job_gets_all_its_attempts_back_and_keeps_its_wait(
        self, queue: BackfillQueue
    ) -> None:
        await add(queue, 0, 10)
        await queue.fail(await claim_one(queue), "down", retry_in_s=3_600)
        assert [job.attempt for job in await add(queue, 0, 10)] == [1]
        assert [job.attempt for job in await add(queue, 0, 11)] == [0]
        assert await queue.claim("w", 8) == []

    async def test_jobs_that_join_wait_as_long_as_a_provider_asked_one_of_them_to(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        await add(queue, 0, 10)
        retry_at = await database.pool.fetchval("SELECT now() + interval '1 hour'")
        await queue.snooze(await claim_one(queue), retry_at, "limit")
        await add(queue, 20, 30)
        await add(queue, 10, 20)
        assert await states(database) == [("ready", 0, 30)]
        assert await queue.claim("w", 8) == []

    async def test_a_job_that_is_given_back_during_the_request_is_not_queued_twice(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        """The request waits for a lock while a leased job, which it saw as leased, becomes ready."""
        await add(queue, 20, 30)
        lease = await claim_one(queue)
        (waiting,) = await add(queue, 0, 10)
        async with database.transaction() as blocker:
            await blocker.execute("SELECT FROM backfill_jobs WHERE id = $1 FOR UPDATE", waiting.id)
            request = await waiting_request(blocker, queue, 0, 30)
            await queue.release(lease)
        await request
        assert await states(database) == [("ready", 0, 20), ("ready", 20, 30)]

    async def test_a_job_that_is_claimed_during_the_request_is_not_changed(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        (job,) = await add(queue, 0, 10)
        async with database.transaction() as claim:
            await claim.execute(
                "UPDATE backfill_jobs SET state = 'leased', lease_token = gen_random_uuid(), "
                "lease_until = now() + interval '1 minute' WHERE id = $1",
                job.id,
            )
            request = await waiting_request(claim, queue, 0, 30)
        await request
        assert await states(database) == [("leased", 0, 10), ("ready", 10, 30)]

    async def test_the_inclusive_trap_is_one_job_of_eleven_minutes(self, queue: BackfillQueue) -> None:
        """`BETWEEN '14:00' AND '14:10'` names eleven minute bars; the half-open range ends at 14:11."""
        for number in range(11):
            await add(queue, number, number + 1)
        (job,) = await add(queue, 0, 11)
        assert job.start.isoformat() == "2025-10-08T14:00:00+00:00"
        assert job.end.isoformat() == "2025-10-08T14:11:00+00:00"

    async def test_an_impossible_request_is_refused(self, database: Database) -> None:
        queue = BackfillQueue(database, longest_bars=1, most_jobs=5)
        with pytest.raises(InputError, match="not before its end"):
            await add(queue, 10, 10)
        with pytest.raises(InputError, match="has no time zone"):
            await queue.enqueue("AAPL", M1, datetime(2025, 1, 1), minute(0))  # noqa: DTZ001 - the point
        with pytest.raises(InputError, match="tier 'T9'"):
            await add(queue, tier="T9")
        with pytest.raises(InputError, match="would become 6 jobs"):
            await add(queue, 0, 6)
        first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
        with pytest.raises(InputError, match="would become 5258964960 jobs"):  # 3 652 059 days
            await queue.enqueue("AAPL", M1, first, last)
        assert await states(database) == []


class TestClaim:
    async def test_the_most_urgent_goes_first_but_nobody_starves(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        """With 15 minutes a tier, T3 beats a T0 that comes more than 45 minutes later."""
        ages_min = {"C": ("T1", 0), "D": ("T3", 44), "B": ("T0", 0), "A": ("T3", 46)}
        for symbol, (tier, age_min) in ages_min.items():
            await add(queue, symbol=symbol, tier=tier)
            await database.pool.execute(
                "UPDATE backfill_jobs SET due = due - make_interval(mins => $2) WHERE symbol = $1",
                symbol,
                age_min,
            )
        one_by_one = [await claim_one(queue) for _ in range(2)]
        assert [lease.symbol for lease in one_by_one] == ["A", "B"]
        assert [lease.symbol for lease in await queue.claim("w", 8)] == ["D", "C"]

    async def test_a_claim_takes_at_most_its_limit(self, queue: BackfillQueue) -> None:
        for symbol in ("A", "B", "C"):
            await add(queue, symbol=symbol)
        assert len(await queue.claim("w", 2)) == 2
        assert len(await queue.claim("w", 2)) == 1

    async def test_many_claimers_never_exceed_the_limit_of_a_tier(self, database: Database) -> None:
        queue = BackfillQueue(database, limits={"T0": 3, "T1": 2})
        for number in range(40):
            await add(queue, symbol=f"T0S{number}", tier="T0")
            await add(queue, symbol=f"T1S{number}", tier="T1")
        peaks = {"T0": 0, "T1": 0}

        async def work(worker: int) -> int:
            done = 0
            while leases := await queue.claim(f"w{worker}", 4) or await waiting():
                for lease in leases:
                    running = await database.pool.fetch(
                        "SELECT tier, count(*) AS n FROM backfill_jobs WHERE state = 'leased' GROUP BY tier"
                    )
                    for row in running:
                        peaks[row["tier"]] = max(peaks[row["tier"]], row["n"])
                    await queue.complete(lease, 0)
                    done += 1
            return done

        async def waiting() -> list[Lease]:
            """Claim until there is something or nothing is left to wait for."""
            while sum(depth.waiting for depth in (await queue.depth()).values()):
                if leases := await queue.claim("late", 1):
                    return leases
            return []

        assert sum(await asyncio.gather(*(work(number) for number in range(12)))) == 80
        assert peaks == {"T0": 3, "T1": 2}

    async def test_a_full_tier_does_not_hide_the_jobs_of_another(self, database: Database) -> None:
        queue = BackfillQueue(database, limits={"T0": 1})
        for number in range(20):
            await add(queue, symbol=f"S{number}", tier="T0")
        await add(queue, symbol="LAST", tier="T3")
        assert [lease.tier for lease in await queue.claim("w", 8)] == ["T0", "T3"]

    async def test_an_expired_lease_is_claimed_again_with_its_attempt_counted(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        (job,) = await add(queue)
        first = await claim_one(queue, "gone")
        await expire(database, first)
        second = await claim_one(queue, "heir")
        assert (second.id, second.attempt) == (job.id, 2)
        assert second.token != first.token
        assert await outcomes(queue, job.id) == [(1, "lease_expired", None), (2, None, None)]

    async def test_an_expired_lease_does_not_fill_the_limit(self, database: Database) -> None:
        queue = BackfillQueue(database, limits={"T2": 1})
        await add(queue)
        await expire(database, await claim_one(queue))
        assert (await claim_one(queue)).attempt == 2

    async def test_a_job_whose_last_lease_expires_is_dead_with_its_history(self, database: Database) -> None:
        queue = BackfillQueue(database, max_attempts=2)
        (job,) = await add(queue)
        for _ in range(2):
            await expire(database, await claim_one(queue))
        assert await queue.claim("w", 1) == []
        dead = await queue.get(job.id)
        assert dead is not None
        assert (dead.state, dead.reason, dead.attempt) == ("dead", "lease_expired", 2)
        assert await outcomes(queue, job.id) == [(1, "lease_expired", None), (2, "lease_expired", None)]


class TestFence:
    async def test_the_zombie_writes_nothing_and_finishes_nothing(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        (job,) = await add(queue)
        zombie = await claim_one(queue, "same name")
        await expire(database, zombie)
        heir = await claim_one(queue, "same name")
        with pytest.raises(LeaseLost):
            async with queue.fenced(zombie):
                pytest.fail("a zombie must not get a connection")
        for late in (
            queue.complete(zombie, 10),
            queue.fail(zombie, "late", retry_in_s=0),
            queue.snooze(zombie, T, "late"),
            queue.release(zombie),
        ):
            with pytest.raises(LeaseLost):
                await late
        assert await queue.beat([zombie, heir]) == {heir.id}
        await queue.complete(heir, 7)
        done = await queue.get(job.id)
        assert done is not None
        assert (done.state, done.rows_written) == ("done", 7)

    async def test_an_expired_lease_is_lost_even_if_nobody_took_it(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        await add(queue)
        lease = await claim_one(queue)
        await expire(database, lease)
        assert await queue.beat([lease]) == set()
        with pytest.raises(LeaseLost):
            await queue.complete(lease, 1)

    async def test_a_job_is_completed_once(self, queue: BackfillQueue) -> None:
        await add(queue)
        lease = await claim_one(queue)
        await queue.complete(lease, 1)
        with pytest.raises(LeaseLost):
            await queue.complete(lease, 1)

    async def test_a_crash_between_write_and_completion_leaves_nothing(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        (job,) = await add(queue)
        lease = await claim_one(queue)

        async def crash_after_the_write() -> None:
            async with queue.fenced(lease) as connection:
                await connection.execute("INSERT INTO effect VALUES (1)")
                await queue.complete(lease, 1, connection)
                raise RuntimeError("crash")

        with pytest.raises(RuntimeError, match="crash"):
            await crash_after_the_write()
        assert await database.pool.fetchval("SELECT count(*) FROM effect") == 0
        after = await queue.get(job.id)
        assert after is not None
        assert after.state == "leased"

    async def test_write_and_completion_commit_together(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        (job,) = await add(queue)
        lease = await claim_one(queue)
        async with queue.fenced(lease) as connection:
            await connection.execute("INSERT INTO effect VALUES (1)")
            await queue.complete(lease, 1, connection)
            assert await database.pool.fetchval("SELECT count(*) FROM effect") == 0
            before = await queue.get(job.id)
            assert before is not None
            assert before.state == "leased"
        assert await database.pool.fetchval("SELECT count(*) FROM effect") == 1
        assert await outcomes(queue, job.id) == [(1, "done", None)]

    async def test_nobody_takes_a_job_while_its_worker_holds_the_fence(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        """A lease that runs out inside the fence is still safe: the row is locked until the end."""
        short = BackfillQueue(database, lease_s=SHORT_S)
        await add(queue)
        lease = await claim_one(short)
        async with queue.fenced(lease) as connection:
            while not await connection.fetchval("SELECT clock_timestamp() > $1", lease.lease_until):
                pass
            assert await queue.claim("thief", 1) == []
            await queue.complete(lease, 3, connection)
        after = await queue.get(lease.id)
        assert after is not None
        assert after.state == "done"

    async def test_a_beat_does_not_wait_for_the_fence_of_a_neighbour(self, queue: BackfillQueue) -> None:
        await add(queue, symbol="A")
        await add(queue, symbol="B")
        leases = await queue.claim("w", 2)
        async with queue.fenced(leases[0]):
            assert await queue.beat(leases) == {lease.id for lease in leases}

    async def test_a_worker_that_freezes_inside_the_fence_loses_it(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        short = BackfillQueue(database, lease_s=SHORT_S)
        (job,) = await add(queue)
        frozen = await claim_one(short)
        heirs: list[Lease] = []

        async def freeze_then_write() -> None:
            async with short.fenced(frozen) as connection:
                while not heirs:  # the frozen worker says nothing; the server ends its session
                    heirs.extend(await queue.claim("heir", 1))
                await connection.execute("INSERT INTO effect VALUES (1)")

        with pytest.raises(Exception, match=r"idle-in-transaction|closed|was lost"):
            await freeze_then_write()
        assert [(heir.id, heir.attempt) for heir in heirs] == [(job.id, 2)]
        assert await database.pool.fetchval("SELECT count(*) FROM effect") == 0


class TestEnds:
    async def test_a_beat_renews_every_lease_of_the_worker(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        for symbol in ("A", "B"):
            await add(queue, symbol=symbol)
        leases = await queue.claim("w", 2)
        await database.pool.execute("UPDATE backfill_jobs SET lease_until = lease_until - interval '50 s'")
        assert await queue.beat(leases) == {lease.id for lease in leases}
        left_s = await database.pool.fetchval(
            "SELECT extract(epoch FROM min(lease_until) - clock_timestamp())::float8 FROM backfill_jobs"
        )
        assert 30 < left_s <= 60

    async def test_a_snooze_gives_the_attempt_back_and_waits_as_long_as_told(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        (job,) = await add(queue)
        retry_at = await database.pool.fetchval("SELECT now() + interval '60 s'")
        for _ in range(20):
            assert await queue.snooze(await claim_one(queue), retry_at, "limit reached") == "ready"
            assert await queue.claim("w", 1) == []
            assert await database.pool.fetchval("SELECT run_at >= $1 FROM backfill_jobs", retry_at)
            await database.pool.execute("UPDATE backfill_jobs SET run_at = now()")
        after = await queue.get(job.id)
        assert after is not None
        assert (after.state, after.attempt, after.reason) == ("ready", 0, "limit reached")

    async def test_snoozing_is_bounded_by_the_age_of_the_job(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        (job,) = await add(queue)
        await database.pool.execute("UPDATE backfill_jobs SET enqueued_at = now() - interval '8 days'")
        assert await queue.snooze(await claim_one(queue), T, "limit") == "dead"
        after = await queue.get(job.id)
        assert after is not None
        assert (after.state, after.reason) == ("dead", "waited too long: limit")

    async def test_a_job_that_keeps_failing_is_dead_with_all_its_attempts(self, database: Database) -> None:
        queue = BackfillQueue(database, max_attempts=3)
        (job,) = await add(queue)
        ends = [await queue.fail(await claim_one(queue), f"error {n}", retry_in_s=0) for n in (1, 2, 3)]
        assert ends == ["ready", "ready", "dead"]
        after = await queue.get(job.id)
        assert after is not None
        assert (after.state, after.reason, after.attempt) == ("dead", "error 3", 3)
        assert await outcomes(queue, job.id) == [
            (1, "failed", "error 1"),
            (2, "failed", "error 2"),
            (3, "dead", "error 3"),
        ]
        assert await queue.dead_count() == 1

    async def test_a_failed_job_waits_before_the_next_attempt(self, queue: BackfillQueue) -> None:
        await add(queue)
        await queue.fail(await claim_one(queue), "down", retry_in_s=3_600)
        assert await queue.claim("w", 1) == []

    async def test_what_can_never_work_is_dead_at_once(self, queue: BackfillQueue) -> None:
        (job,) = await add(queue)
        assert await queue.fail(await claim_one(queue), "no such symbol", retry_in_s=None) == "dead"
        within = await queue.dead_spans("AAPL", M1, minute(5), minute(6), within_s=60)
        assert within == [(job.start, job.end)]
        assert await queue.dead_spans("AAPL", M1, minute(10), minute(11), within_s=60) == []

    async def test_no_key_is_kept_in_a_reason(self, queue: BackfillQueue) -> None:
        (job,) = await add(queue)
        url = "https://example.com/query?symbol=AAPL&apikey=S3CRET&x=1"
        await queue.fail(await claim_one(queue), f"500 from {url}", retry_in_s=None)
        (attempt,) = await queue.attempts(job.id)
        assert attempt.message == "500 from https://example.com/query?symbol=AAPL&apikey=***&x=1"
        after = await queue.get(job.id)
        assert after is not None
        assert after.reason == attempt.message

    async def test_a_released_job_is_ready_at_once_with_its_attempt_back(self, queue: BackfillQueue) -> None:
        (job,) = await add(queue)
        await queue.release(await claim_one(queue))
        assert (await claim_one(queue)).attempt == 1
        assert await outcomes(queue, job.id) == [(1, "released", None), (1, None, None)]

    async def test_depth_counts_what_waits_and_an_expired_lease_waits(
        self, queue: BackfillQueue, database: Database
    ) -> None:
        for symbol, tier in (("A", "T0"), ("B", "T0"), ("C", "T3")):
            await add(queue, symbol=symbol, tier=tier)
        await database.pool.execute("UPDATE backfill_jobs SET enqueued_at = now() - interval '90 s'")
        lease = await claim_one(queue)
        depth = await queue.depth()
        assert {tier: one.waiting for tier, one in depth.items()} == {"T0": 1, "T1": 0, "T2": 0, "T3": 1}
        assert depth["T1"].oldest_age_s == 0
        assert 90 <= depth["T3"].oldest_age_s < 300
        await expire(database, lease)
        assert (await queue.depth())["T0"].waiting == 2

    async def test_an_unknown_job_is_none(self, queue: BackfillQueue) -> None:
        assert await queue.get(1) is None
