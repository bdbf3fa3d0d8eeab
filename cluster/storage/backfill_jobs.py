"""The durable backfill queue: at least once, fenced, with strict limits per tier.

Every time in it is the database's; a worker's clock may be wrong. The right to finish an attempt is its
random token: a worker whose lease has expired owns nothing, even before somebody else takes the job.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from random import random
from types import MappingProxyType
from uuid import UUID

import asyncpg

from cluster.clock import SystemClock
from cluster.errors import LeaseLost, RateLimited, StorageError
from cluster.market.intervals import Interval
from cluster.market.symbols import Tier
from cluster.redaction import redact
from cluster.storage import audit, backfill_bell, backfill_enqueue, backfill_excuse
from cluster.storage.audit import Author
from cluster.storage.backfill_enqueue import Wanted
from cluster.storage.backfill_merge import Span
from cluster.storage.backfill_records import (
    LONGEST_PAUSE,
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

_SHORTEST_BOUND_S = 5.0  # a busy machine is no cut network
_LONGEST_SNOOZE_JITTER = timedelta(seconds=1)

_SLOT = """
SELECT taken, extract(epoch FROM retry_at - clock_timestamp())::float8 AS wait_s
FROM take_backfill_slot($1, $2, $3, $4, $5)
"""

_PAUSE = """
INSERT INTO backfill_pauses AS p (provider, until, reason, account)
VALUES ($1, clock_timestamp() + least($2::interval, $3::interval), $4, $5)
ON CONFLICT (account) DO UPDATE SET until = EXCLUDED.until, reason = EXCLUDED.reason
WHERE p.until < EXCLUDED.until
"""

# See schema/0017_pauses_by_account.sql.
_CLAIM = """
SELECT id, lease_token, symbol, interval, start_ts, end_ts, tier, provider, attempt, max_attempts, leased_at,
       lease_until
FROM claim_backfill_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb)
"""

# In the order of the ids, so that nobody deadlocks with another who holds some of them. With the rows come
# the limits of the transaction that holds them.
_FENCE = """
SELECT j.id, set_config('idle_in_transaction_session_timeout', $3, true),
       set_config('statement_timeout', $3, true)
FROM backfill_jobs j
JOIN unnest($1::bigint[], $2::uuid[]) AS mine (id, token) ON j.id = mine.id AND j.lease_token = mine.token
WHERE j.state = 'leased' AND j.lease_until > clock_timestamp()
ORDER BY j.id FOR UPDATE OF j
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

# Inside of a fence the rows are held, whatever the time; without one the lease must last until now.
_DONE = """
WITH done AS (
    UPDATE backfill_jobs j
    SET state = 'done', rows_written = mine.rows, reason = NULL, finished_at = clock_timestamp(),
        lease_token = NULL, lease_until = NULL
    FROM unnest($1::bigint[], $2::uuid[], $3::bigint[]) AS mine (id, token, rows)
    WHERE j.id = mine.id AND j.lease_token = mine.token AND j.state = 'leased'
      AND ($4 OR j.lease_until > clock_timestamp())
    RETURNING j.id, mine.token, j.attempt, j.leased_by, j.leased_at, j.finished_at),
kept AS (
    INSERT INTO backfill_attempts (job_id, token, attempt, worker, started_at, ended_at, outcome)
    SELECT id, token, attempt, leased_by, leased_at, finished_at, 'done' FROM done)
SELECT id FROM done
"""

_WAIT = """
UPDATE backfill_jobs
SET state = 'ready', reason = $3, attempt = attempt - $4::int,
    run_at = clock_timestamp() + $5::interval, lease_token = NULL, lease_until = NULL
WHERE id = $1 AND lease_token = $2
"""

_DEAD = """
UPDATE backfill_jobs
SET state = 'dead', reason = $3, finished_at = clock_timestamp(), lease_token = NULL, lease_until = NULL
WHERE id = $1 AND lease_token = $2
"""

# Before the row forgets the attempt.
_KEEP_ATTEMPT = """
INSERT INTO backfill_attempts (job_id, token, attempt, worker, started_at, ended_at, outcome, message)
SELECT id, lease_token, attempt, leased_by, leased_at, clock_timestamp(), $3, $4
FROM backfill_jobs WHERE id = $1 AND lease_token = $2
"""

_TOO_OLD = "SELECT clock_timestamp() - started_at > $2::interval FROM backfill_jobs WHERE id = $1"

_GET = """
WITH RECURSIVE chain AS (
    SELECT id AS asked_id, * FROM backfill_jobs WHERE id = ANY($1::bigint[])
    UNION ALL
    SELECT chain.asked_id, j.* FROM backfill_jobs j JOIN chain ON j.id = chain.merged_into)
SELECT * FROM chain WHERE state <> 'merged'
"""

_ATTEMPTS = """
WITH RECURSIVE chain AS (
    SELECT id, merged_into FROM backfill_jobs WHERE id = $1
    UNION ALL
    SELECT j.id, j.merged_into FROM backfill_jobs j JOIN chain ON j.id = chain.merged_into),
family AS (
    SELECT id FROM chain WHERE merged_into IS NULL
    UNION ALL
    SELECT j.id FROM backfill_jobs j JOIN family ON j.merged_into = family.id)
SELECT token, attempt, worker, started_at, ended_at, outcome, message FROM backfill_attempts
WHERE job_id IN (SELECT id FROM family)
UNION ALL
SELECT lease_token, attempt, leased_by, leased_at, NULL, NULL, NULL FROM backfill_jobs
WHERE id IN (SELECT id FROM family) AND state = 'leased'
ORDER BY started_at
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

    `limits` holds the most running jobs of each tier over the whole fleet, `provider_limits` those of each
    provider; who is not named has none. All processes must have the same. `routes`: the providers that jobs
    are routed to here when they name none; such jobs are not claimed while all of these are paused or full.
    `accounts`: by provider whose calls ours count with, where those are not all: a pause is an account's.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_s: float = 60.0,
        limits: Mapping[Tier, int] = MappingProxyType({}),
        provider_limits: Mapping[str, int] = MappingProxyType({}),
        routes: Collection[str] | None = None,
        accounts: Mapping[str, str] = MappingProxyType({}),
        max_attempts: int = 20,
        longest_bars: int = 1_000,
        most_jobs: int = 10_000,
        ageing_step_s: float = 900.0,
        longest_snooze_s: float = 7 * 86_400.0,
    ) -> None:
        self.lease_s = lease_s
        self._database = database
        self._limits = [limits.get(tier) for tier in TIERS]
        self._provider_limits = dict(provider_limits)
        self._routes = None if routes is None else list(routes)
        self._accounts = dict(accounts)
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
        by: Author | None = None,
    ) -> list[JobStatus]:
        """Have the bars with `start <= open < end` fetched; returns the jobs that cover the range, in order.

        What waits or runs already is not queued again: the answer names the job that has it. Ready jobs that
        touch the range grow, up to the longest range of a job. `by`: for the audit log. Raises `InputError`
        for an impossible range.
        """
        wanted = Wanted(symbol, interval, Span(start, end), tier, provider)
        async with self._database.transaction() as connection:
            jobs = await backfill_enqueue.enqueue(connection, wanted, self.rules)
            asked = {"interval": interval, "start": start, "end": end, "tier": tier, "provider": provider}
            ids = [job.id for job in jobs]
            await audit.record(connection, by, "backfill.enqueue", symbol, **asked, jobs=ids)
        await backfill_bell.ring(self._database)
        return jobs

    async def enqueue_many(self, wanted: Sequence[Wanted]) -> list[tuple[int, ...]]:
        """`enqueue` of each in one transaction; returns for each the ids of the jobs that cover it, in order.

        For many thousands at once. Nothing is queued when one of them is refused.
        """
        async with self._database.transaction() as connection:
            jobs = await backfill_enqueue.enqueue_many(connection, wanted, self.rules)
        if jobs:
            await backfill_bell.ring(self._database)
        return jobs

    async def claim(self, worker: str, limit: int) -> list[Lease]:
        """Up to `limit` jobs for `worker`, most urgent first, within the limits of tiers and providers.

        Expired leases are freed on the way, so recovery needs nothing but somebody who claims. An expired job
        without attempts left becomes dead.
        """
        lease, most = timedelta(seconds=self.lease_s), self._provider_limits
        limits = (list(TIERS), self._limits, list(most), list(most.values()), self._routes)
        accounts = json.dumps(self._accounts)
        return [lease_of(row) for row in await self._fetch(_CLAIM, worker, limit, lease, *limits, accounts)]

    async def beat(self, leases: Collection[Lease]) -> set[int]:
        """Renew the leases in one statement; returns the job ids still held, the others are lost."""
        duration = timedelta(seconds=self.lease_s)
        return {row["id"] for row in await self._fetch(_BEAT, *_ids_and_tokens(leases), duration)}

    async def take_slot(self, lease: Lease, provider: str) -> None:
        """Count the job for `provider`, to which it was routed, before the provider is asked.

        Raises `RateLimited` when the provider is paused or at its limit, by the caller's clock, `LeaseLost`.
        """
        most = self._provider_limits.get(provider)
        account = self._accounts.get(provider, provider)
        slots = await self._fetch(_SLOT, lease.id, lease.token, provider, account, most)
        if not slots:
            raise _lost(lease)
        slot = slots[0]
        if not slot["taken"]:
            wait_s: float = slot["wait_s"]
            retry_at = SystemClock().now() + timedelta(seconds=wait_s)
            raise RateLimited(f"provider {provider} has no room for {wait_s:.1f} s", retry_at)

    async def pause(self, provider: str, wait_s: float, reason: str) -> None:
        """Have no job ask `provider` on our account for `wait_s` seconds; a longer pause stays.

        Bounded to `LONGEST_PAUSE`. One row for all the jobs of the provider, which stay as they are.
        """
        account = self._accounts.get(provider, provider)
        wait = timedelta(seconds=wait_s)
        await self._fetch(_PAUSE, provider, wait, LONGEST_PAUSE, redact(reason), account)

    @asynccontextmanager
    async def fenced(self, lease: Lease) -> AsyncIterator[Connection]:
        """`fenced_many` of one; raises `LeaseLost` when the lease has expired or is another attempt's."""
        async with self.fenced_many([lease]) as (connection, held):
            if lease.id not in held:
                raise _lost(lease)
            yield connection

    @asynccontextmanager
    async def fenced_many(self, leases: Collection[Lease]) -> AsyncIterator[tuple[Connection, set[int]]]:
        """A transaction in which the leases of the returned ids cannot be lost; the others are lost.

        What it writes commits with them or not at all. The transaction may not pause, nor one statement
        take, longer than a lease: the server ends it, so that a frozen worker cannot keep its jobs. All of
        it may not take longer than two: we end it, so that a network that is cut cannot keep the worker.
        """
        bound_s = max(2 * self.lease_s, _SHORTEST_BOUND_S)
        try:
            async with asyncio.timeout(bound_s), self._database.transaction() as connection:
                longest = f"{max(1, round(self.lease_s * 1_000))}ms"
                rows = await connection.fetch(_FENCE, *_ids_and_tokens(leases), longest)
                yield connection, {row["id"] for row in rows}
        except TimeoutError as error:
            raise StorageError(f"a transaction of {len(leases)} jobs took more than {bound_s:g} s") from error

    async def complete_many(
        self, done: Sequence[tuple[Lease, int]], connection: Connection | None = None
    ) -> set[int]:
        """The jobs are done, each with the bars it wrote, in one statement.

        Given the connection of a fence, they are done when that transaction commits. Returns the ids
        of those that were still leased; the others are lost and unchanged.
        """
        ids, tokens = _ids_and_tokens([lease for lease, _ in done])
        arguments = (ids, tokens, [rows for _, rows in done], connection is not None)
        found = await (connection.fetch(_DONE, *arguments) if connection else self._fetch(_DONE, *arguments))
        return {row["id"] for row in found}

    async def snooze(self, lease: Lease, wait_s: float, reason: str) -> JobState:
        """Wait for `wait_s` seconds, without using an attempt; returns the new state.

        Bounded by the time since its first attempt, not by a count: beyond it the job is dead.
        Raises `LeaseLost`.
        """
        reason = redact(reason)
        async with self.fenced(lease) as fence:
            if await fence.fetchval(_TOO_OLD, lease.id, self._longest_snooze):
                return await self._bury(fence, lease, f"waited too long: {reason}")
            jitter = _LONGEST_SNOOZE_JITTER * random()  # noqa: S311 - spreads a herd, guards nothing
            wait = timedelta(seconds=max(0.0, wait_s)) + jitter
            await self._keep(fence, lease, "snoozed", reason)
            await fence.execute(_WAIT, lease.id, lease.token, reason, 1, wait)
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
            await self._keep(fence, lease, "failed", reason)
            await fence.execute(_WAIT, lease.id, lease.token, reason, 0, delay)
        return "ready"

    async def excuse(self, leases: Collection[Lease], reason: str) -> list[Lease]:
        """Undo attempts that the database itself broke off; returns those that are to be tried again.

        Raises `StorageError` while it goes on; see `backfill_excuse.excuse`.
        """
        return await backfill_excuse.excuse(self._database, leases, redact(reason), self._longest_snooze)

    async def release(self, lease: Lease) -> None:
        """Give the job back at once, without using an attempt. Raises `LeaseLost`."""
        async with self.fenced(lease) as fence:
            await self._keep(fence, lease, "released", None)
            await fence.execute(_WAIT, lease.id, lease.token, None, 1, timedelta(0))

    async def get(self, job: int) -> JobStatus | None:
        """The job, or the one it was merged into; `None` when there is no such id."""
        return (await self.get_many([job])).get(job)

    async def get_many(self, jobs: Collection[int]) -> dict[int, JobStatus]:
        """`get` of each id; ids that do not exist are left out."""
        return {row["asked_id"]: status_of(row) for row in await self._fetch(_GET, list(jobs))}

    async def attempts(self, job: int) -> list[Attempt]:
        """Every attempt of the job that `get` answers and of all that were merged into it, in order."""
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

    async def _fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        async with self._database.connection() as connection:
            return await connection.fetch(statement, *arguments)

    async def _bury(self, fence: Connection, lease: Lease, reason: str) -> JobState:
        await self._keep(fence, lease, "dead", reason)
        await fence.execute(_DEAD, lease.id, lease.token, reason)
        return "dead"

    async def _keep(self, fence: Connection, lease: Lease, outcome: Outcome, message: str | None) -> None:
        await fence.execute(_KEEP_ATTEMPT, lease.id, lease.token, outcome, message)


def _ids_and_tokens(leases: Collection[Lease]) -> tuple[list[int], list[UUID]]:
    return [lease.id for lease in leases], [lease.token for lease in leases]


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"the lease of job {lease.id}, attempt {lease.attempt}, has ended; its work is dropped")
