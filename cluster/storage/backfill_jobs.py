"""The durable backfill queue: at least once, fenced, with strict limits per tier.

Every time in it is the database's; a worker's clock may be wrong. The right to finish an attempt is its
random token: a worker whose lease has expired owns nothing, even before somebody else takes the job.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime, timedelta
from random import random
from types import MappingProxyType

import asyncpg

from cluster.errors import LeaseLost
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.redaction import redact
from cluster.storage import backfill_enqueue
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import (
    TIERS,
    Attempt,
    Depth,
    JobState,
    JobStatus,
    Lease,
    Outcome,
    lease_of,
    span_of,
    status_of,
)
from cluster.storage.database import Connection, Database

_LONGEST_SNOOZE_JITTER = timedelta(seconds=1)

# Claims of the whole fleet go one after another. The lock is a statement of its own, because the snapshot of
# a statement is older than a lock it waited for: a count in the same statement would be out of date.
# A claimer that freezes here loses its session, and with it the lock.
_LOCK_CLAIMS = """
SELECT set_config('idle_in_transaction_session_timeout', '10s', true),
       pg_advisory_xact_lock(hashtextextended('backfill claims', 0))
"""

_RESCUE = """
WITH expired AS (
    SELECT id, lease_token FROM backfill_jobs
    WHERE state = 'leased' AND lease_until <= clock_timestamp()
    FOR UPDATE SKIP LOCKED),
closed AS (
    UPDATE backfill_attempts a SET ended_at = clock_timestamp(), outcome = 'lease_expired'
    FROM expired WHERE a.token = expired.lease_token)
UPDATE backfill_jobs j
SET state = CASE WHEN attempt >= max_attempts THEN 'dead' ELSE 'ready' END,
    finished_at = CASE WHEN attempt >= max_attempts THEN clock_timestamp() END,
    run_at = clock_timestamp(), reason = 'lease_expired',
    lease_token = NULL, lease_until = NULL, leased_by = NULL
FROM expired WHERE j.id = expired.id
"""

# After the rescue: an expired lease that is still here is held by a worker that writes at this moment.
_RUNNING = "SELECT tier, count(*) AS running FROM backfill_jobs WHERE state = 'leased' GROUP BY tier"

# Each tier is asked for its own head, so that a full tier never hides the jobs of another.
_CLAIM = """
WITH picked AS (
    SELECT head.id
    FROM unnest($1::text[], $2::int[]) AS room (tier, free)
    CROSS JOIN LATERAL (
        SELECT id, due FROM backfill_jobs
        WHERE state = 'ready' AND tier = room.tier AND run_at <= clock_timestamp()
        ORDER BY due, id LIMIT room.free FOR UPDATE SKIP LOCKED) AS head
    ORDER BY head.due, head.id LIMIT $3),
taken AS (
    UPDATE backfill_jobs j
    SET state = 'leased', attempt = attempt + 1, lease_token = gen_random_uuid(),
        lease_until = clock_timestamp() + $4::interval, leased_by = $5,
        started_at = coalesce(started_at, clock_timestamp())
    FROM picked WHERE j.id = picked.id
    RETURNING j.*),
opened AS (
    INSERT INTO backfill_attempts (token, job_id, attempt, worker, started_at)
    SELECT lease_token, id, attempt, $5, clock_timestamp() FROM taken)
SELECT * FROM taken ORDER BY due, id
"""

_FENCE = """
SELECT id FROM backfill_jobs
WHERE id = $1 AND lease_token = $2 AND state = 'leased' AND lease_until > clock_timestamp()
FOR UPDATE
"""

_BOUND_TRANSACTION = """
SELECT set_config('idle_in_transaction_session_timeout', $1, true), set_config('statement_timeout', $1, true)
"""

# A row that its own worker holds by `_FENCE` cannot be taken: it counts as held and is not waited for.
_BEAT = """
WITH held AS MATERIALIZED (
    SELECT j.id, j.lease_token FROM backfill_jobs j
    JOIN unnest($1::bigint[], $2::uuid[]) AS mine (id, token) ON j.id = mine.id AND j.lease_token = mine.token
    WHERE j.state = 'leased' AND j.lease_until > clock_timestamp()),
free AS (
    SELECT j.id FROM backfill_jobs j JOIN held ON j.id = held.id AND j.lease_token = held.lease_token
    WHERE j.state = 'leased' AND j.lease_until > clock_timestamp()
    FOR UPDATE OF j SKIP LOCKED),
beaten AS (
    UPDATE backfill_jobs j SET lease_until = clock_timestamp() + $3::interval FROM free WHERE j.id = free.id)
SELECT id FROM held
"""

_DONE = """
UPDATE backfill_jobs
SET state = 'done', rows_written = $3, reason = NULL, finished_at = clock_timestamp(),
    lease_token = NULL, lease_until = NULL, leased_by = NULL
WHERE id = $1 AND lease_token = $2 AND state = 'leased' RETURNING id
"""

_WAIT = """
UPDATE backfill_jobs
SET state = 'ready', reason = $3, attempt = attempt - $4::int,
    run_at = greatest($5::timestamptz, clock_timestamp()) + $6::interval,
    lease_token = NULL, lease_until = NULL, leased_by = NULL
WHERE id = $1 AND lease_token = $2
"""

_DEAD = """
UPDATE backfill_jobs
SET state = 'dead', reason = $3, finished_at = clock_timestamp(),
    lease_token = NULL, lease_until = NULL, leased_by = NULL
WHERE id = $1 AND lease_token = $2
"""

_CLOSE_ATTEMPT = """
UPDATE backfill_attempts SET ended_at = clock_timestamp(), outcome = $2, message = $3 WHERE token = $1
"""

_TOO_OLD = "SELECT clock_timestamp() - enqueued_at > $2::interval FROM backfill_jobs WHERE id = $1"

_GET = """
WITH RECURSIVE chain AS (
    SELECT id AS asked, * FROM backfill_jobs WHERE id = ANY($1::bigint[])
    UNION ALL
    SELECT chain.asked, j.* FROM backfill_jobs j JOIN chain ON j.id = chain.merged_into)
SELECT * FROM chain WHERE state <> 'merged'
"""

_ATTEMPTS = """
SELECT token, attempt, worker, started_at, ended_at, outcome, message FROM backfill_attempts
WHERE job_id = $1 ORDER BY started_at
"""

_DEPTH = """
SELECT tier, count(*) AS waiting,
       extract(epoch FROM clock_timestamp() - min(enqueued_at))::float8 AS oldest_age_s
FROM backfill_jobs
WHERE state = 'ready' OR (state = 'leased' AND lease_until <= clock_timestamp())
GROUP BY tier
"""

_LEASED_COUNT = """
SELECT count(*) FROM backfill_jobs WHERE state = 'leased' AND lease_until > clock_timestamp()
"""

_DEAD_SPANS = """
SELECT start_ts, end_ts FROM backfill_jobs
WHERE symbol = $1 AND interval = $2 AND state = 'dead' AND start_ts < $4 AND end_ts > $3
  AND finished_at > clock_timestamp() - $5::interval
"""


class BackfillQueue:
    """The queue of one database; any number of processes use it at once.

    `limits` holds the most running jobs of each tier over the whole fleet; a tier that is not named has none.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_s: float = 60.0,
        limits: Mapping[Tier, int] = MappingProxyType({}),
        max_attempts: int = 20,
        longest_bars: int = 1_000,
        most_jobs: int = 10_000,
        ageing_step_s: float = 900.0,
        longest_snooze_s: float = 7 * 86_400.0,
    ) -> None:
        self.lease_s = lease_s
        self._database = database
        self._limits = dict(limits)
        self._longest_snooze = timedelta(seconds=longest_snooze_s)
        self.rules = backfill_enqueue.Rules(
            max_attempts, longest_bars, most_jobs, timedelta(seconds=ageing_step_s)
        )

    async def enqueue(
        self,
        symbol: str,
        interval: Interval,
        start: datetime,
        end: datetime,
        *,
        tier: Tier = "T2",
        provider: str | None = None,
    ) -> list[JobStatus]:
        """Have the bars with `start <= open < end` fetched; returns the jobs that cover the range, in order.

        What waits or runs already is not queued again: the answer names the job that has it. Ready jobs that
        touch the range grow, up to the longest range of a job. Raises `InputError` for an impossible range.
        """
        wanted = backfill_enqueue.Wanted(symbol, interval, Span(start, end), tier, provider)
        async with self._database.transaction() as connection:
            return await backfill_enqueue.enqueue(connection, wanted, self.rules)

    async def claim(self, worker: str, limit: int) -> list[Lease]:
        """Up to `limit` jobs for `worker`, most urgent first, within the limits of their tiers.

        Expired leases are freed on the way, so recovery needs nothing but somebody who claims. An expired job
        without attempts left becomes dead.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK_CLAIMS)
            await connection.execute(_RESCUE)
            room = await self._room(connection, limit)
            lease = timedelta(seconds=self.lease_s)
            rows = await connection.fetch(_CLAIM, list(room), list(room.values()), limit, lease, worker)
        return [lease_of(row) for row in rows]

    async def beat(self, leases: Collection[Lease]) -> set[int]:
        """Renew the leases in one statement; returns the job ids still held, the others are lost."""
        ids, tokens = [lease.id for lease in leases], [lease.token for lease in leases]
        duration = timedelta(seconds=self.lease_s)
        return {row["id"] for row in await self._fetch(_BEAT, ids, tokens, duration)}

    @asynccontextmanager
    async def fenced(self, lease: Lease) -> AsyncIterator[Connection]:
        """A transaction in which the lease cannot be lost: what it writes commits with it or not at all.

        Raises `LeaseLost` when the lease has expired or belongs to another attempt. The transaction may not
        pause, nor one statement take, longer than a lease: the server ends it, so that a frozen worker
        cannot keep its job.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_BOUND_TRANSACTION, f"{max(1, round(self.lease_s * 1_000))}ms")
            if await connection.fetchval(_FENCE, lease.id, lease.token) is None:
                raise _lost(lease)
            yield connection

    async def complete(self, lease: Lease, rows_written: int, connection: Connection | None = None) -> None:
        """The job is done. Given the connection of `fenced`, it is done when that transaction commits.

        Raises `LeaseLost`; nothing is changed then.
        """
        async with self._fence_of(lease, connection) as fence:
            _require(await fence.fetchval(_DONE, lease.id, lease.token, rows_written), lease)
            await self._close(fence, lease, "done", None)

    async def snooze(self, lease: Lease, retry_at: datetime, reason: str) -> JobState:
        """Wait until `retry_at`, without using an attempt; returns the new state.

        Snoozing is bounded by the age of the job, not by a count: beyond it the job is dead.
        Raises `LeaseLost`.
        """
        reason = redact(reason)
        async with self.fenced(lease) as fence:
            if await fence.fetchval(_TOO_OLD, lease.id, self._longest_snooze):
                return await self._bury(fence, lease, f"waited too long: {reason}")
            jitter = _LONGEST_SNOOZE_JITTER * random()  # noqa: S311 - spreads a herd, guards nothing
            await fence.execute(_WAIT, lease.id, lease.token, reason, 1, retry_at, jitter)
            await self._close(fence, lease, "snoozed", reason)
        return "ready"

    async def fail(self, lease: Lease, reason: str, *, retry_in_s: float | None) -> JobState:
        """Try again after `retry_in_s` seconds; `None`, or no attempt left: dead. Returns the new state.

        Raises `LeaseLost`.
        """
        reason = redact(reason)
        async with self.fenced(lease) as fence:
            if retry_in_s is None or lease.attempt >= lease.max_attempts:
                return await self._bury(fence, lease, reason)
            delay = timedelta(seconds=retry_in_s)
            await fence.execute(_WAIT, lease.id, lease.token, reason, 0, None, delay)
            await self._close(fence, lease, "failed", reason)
        return "ready"

    async def release(self, lease: Lease) -> None:
        """Give the job back at once, without using an attempt. Raises `LeaseLost`."""
        async with self.fenced(lease) as fence:
            await fence.execute(_WAIT, lease.id, lease.token, None, 1, None, timedelta(0))
            await self._close(fence, lease, "released", None)

    async def get(self, job: int) -> JobStatus | None:
        """The job, or the one it was merged into; `None` when there is no such id."""
        return (await self.get_many([job])).get(job)

    async def get_many(self, jobs: Collection[int]) -> dict[int, JobStatus]:
        """`get` of each id; ids that do not exist are left out."""
        return {row["asked"]: status_of(row) for row in await self._fetch(_GET, list(jobs))}

    async def attempts(self, job: int) -> list[Attempt]:
        """Every attempt of the job, the first one first."""
        return [Attempt(*row) for row in await self._fetch(_ATTEMPTS, job)]

    async def depth(self) -> dict[Tier, Depth]:
        """What waits, of every tier; a job whose lease has expired waits."""
        rows = {row["tier"]: row for row in await self._fetch(_DEPTH)}
        return {
            tier: Depth(rows[tier]["waiting"], rows[tier]["oldest_age_s"]) if tier in rows else Depth(0, 0.0)
            for tier in TIERS
        }

    async def dead_count(self) -> int:
        """Jobs that were given up and wait for a person."""
        rows = await self._fetch("SELECT count(*) FROM backfill_jobs WHERE state = 'dead'")
        count: int = rows[0][0]
        return count

    async def leased_count(self) -> int:
        """Jobs that somebody works on at this moment."""
        rows = await self._fetch(_LEASED_COUNT)
        count: int = rows[0][0]
        return count

    async def dead_spans(
        self, symbol: str, interval: Interval, start: datetime, end: datetime, *, within_s: float
    ) -> list[Span]:
        """Ranges of jobs that were given up in the last `within_s` seconds and touch [start, end)."""
        within = timedelta(seconds=within_s)
        rows = await self._fetch(_DEAD_SPANS, symbol, str(interval), start, end, within)
        return [span_of(row) for row in rows]

    async def _room(self, connection: Connection, limit: int) -> dict[Tier, int]:
        running = {row["tier"]: row["running"] for row in await connection.fetch(_RUNNING)}
        free = {tier: most - running.get(tier, 0) for tier, most in self._limits.items()}
        return {tier: max(0, min(limit, free.get(tier, limit))) for tier in TIERS}

    async def _fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        async with self._database.connection() as connection:
            return await connection.fetch(statement, *arguments)

    def _fence_of(
        self, lease: Lease, connection: Connection | None
    ) -> AbstractAsyncContextManager[Connection]:
        return self.fenced(lease) if connection is None else nullcontext(connection)

    async def _bury(self, fence: Connection, lease: Lease, reason: str) -> JobState:
        await fence.execute(_DEAD, lease.id, lease.token, reason)
        await self._close(fence, lease, "dead", reason)
        return "dead"

    async def _close(self, fence: Connection, lease: Lease, outcome: Outcome, message: str | None) -> None:
        await fence.execute(_CLOSE_ATTEMPT, lease.token, outcome, message)


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"the lease of job {lease.id}, attempt {lease.attempt}, has ended; its work is dropped")


def _require(changed: object, lease: Lease) -> None:
    if changed is None:
        raise _lost(lease)
