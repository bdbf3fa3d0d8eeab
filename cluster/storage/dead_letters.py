"""The dead letter queue: jobs that were given up, until a person puts them back or deletes them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from cluster.market.intervals import Interval
from cluster.storage import audit, backfill_bell, backfill_enqueue
from cluster.storage.audit import Author
from cluster.storage.backfill_enqueue import Rules, Wanted
from cluster.storage.backfill_records import Attempt, JobStatus, span_of, status_of
from cluster.storage.database import Connection, Database

LONGEST_HISTORY = 20

_LIST = """
WITH RECURSIVE letter AS (
    SELECT * FROM backfill_jobs
    WHERE state = 'dead' AND ($1::bigint IS NULL OR id < $1) ORDER BY id DESC LIMIT $2),
family AS (
    SELECT id AS root, id, requeue_count FROM letter
    UNION ALL
    SELECT root, j.id, j.requeue_count FROM backfill_jobs j JOIN family ON j.merged_into = family.id)
SELECT letter.*, (SELECT sum(requeue_count) FROM family WHERE root = letter.id) AS requeues
FROM letter ORDER BY id DESC
"""
_HISTORY = """
WITH RECURSIVE family AS (
    SELECT id AS root, id FROM unnest($1::bigint[]) AS wanted (id)
    UNION ALL
    SELECT root, j.id FROM backfill_jobs j JOIN family ON j.merged_into = family.id)
SELECT last.* FROM unnest($1::bigint[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT root, token, attempt, worker, started_at, ended_at, outcome, message
    FROM family JOIN backfill_attempts ON job_id = family.id
    WHERE root = wanted.id ORDER BY started_at DESC LIMIT $2
) AS last
ORDER BY last.started_at
"""
_DEAD = "SELECT * FROM backfill_jobs WHERE id = $1 AND state = 'dead' FOR UPDATE"
_IS_ACTIVE = """
SELECT EXISTS (
    SELECT FROM backfill_jobs
    WHERE symbol = $1 AND interval = $2 AND provider IS NOT DISTINCT FROM $3
      AND state IN ('ready', 'leased') AND start_ts < $5 AND end_ts > $4)
"""
# It is asked for anew, so its age begins anew; what happened before stays in its attempts.
_REVIVE = """
UPDATE backfill_jobs
SET state = 'ready', reason = 'requeued', attempt = 0, requeue_count = requeue_count + 1,
    enqueued_at = now(), run_at = now(), due = now() + $2::interval, started_at = NULL, finished_at = NULL
WHERE id = $1 RETURNING *
"""
_MERGE = """
UPDATE backfill_jobs
SET state = 'merged', merged_into = $2, requeue_count = requeue_count + 1, finished_at = now()
WHERE id = $1
"""
# With it go the jobs that were merged into it, and all their attempts.
_DELETE = """
WITH RECURSIVE family AS (
    SELECT id FROM backfill_jobs WHERE id = $1 AND state = 'dead'
    UNION ALL
    SELECT j.id FROM backfill_jobs j JOIN family ON j.merged_into = family.id),
history AS (DELETE FROM backfill_attempts WHERE job_id IN (SELECT id FROM family))
DELETE FROM backfill_jobs WHERE id = $1 AND state = 'dead' RETURNING symbol
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead job and what happened to it, and to those that were merged into it."""

    job: JobStatus
    requeue_count: int
    """How often any of them was put back."""
    history: tuple[Attempt, ...]
    """The last `LONGEST_HISTORY` attempts, the oldest first."""


async def listed(database: Database, limit: int, before: int | None = None) -> list[DeadLetter]:
    """Dead jobs, the youngest id first; those below the id `before`, if it is given."""
    async with database.connection() as connection:
        rows = await connection.fetch(_LIST, before, limit)
        histories = await _histories(connection, [row["id"] for row in rows])
    return [DeadLetter(status_of(row), int(row["requeues"]), tuple(histories[row["id"]])) for row in rows]


async def _histories(connection: Connection, jobs: list[int]) -> dict[int, list[Attempt]]:
    found: dict[int, list[Attempt]] = defaultdict(list)
    for row in await connection.fetch(_HISTORY, jobs, LONGEST_HISTORY):
        job, *attempt = row
        found[job].append(Attempt(*attempt))
    return found


async def requeue(database: Database, job: int, rules: Rules, *, by: Author | None = None) -> list[JobStatus]:
    """Have the range of a dead job fetched after all; the jobs that now have it, none for one not dead.

    It is the same job with all its attempts to go, and keeps its id and its history. Where others have come
    to fetch a part of its range meanwhile, it is merged into the jobs that together cover it. `by`: for the
    audit log.
    """
    covering = await _requeued(database, job, rules, by)
    if covering:
        await backfill_bell.ring(database)
    return covering


async def _requeued(database: Database, job: int, rules: Rules, by: Author | None) -> list[JobStatus]:
    async with database.transaction() as connection:
        row = await connection.fetchrow(_DEAD, job)
        if row is None:
            return []
        wanted = Wanted(row["symbol"], Interval(row["interval"]), span_of(row), row["tier"], row["provider"])
        await audit.record(connection, by, "dlq.requeue", str(job), symbol=wanted.symbol)
        await backfill_enqueue.lock(connection, [wanted])
        if not await connection.fetchval(_IS_ACTIVE, *wanted.key, *wanted.span):
            revived = await connection.fetch(_REVIVE, job, rules.patience(wanted.tier))
            return [status_of(row) for row in revived]
        covering = await backfill_enqueue.enqueue(connection, wanted, rules)
        await connection.execute(_MERGE, job, covering[0].id)
        return covering


async def delete(database: Database, job: int, *, by: Author | None = None) -> bool:
    """Forget a dead job and its attempts; False when there is no dead job of this id."""
    async with database.transaction() as connection:
        symbol = await connection.fetchval(_DELETE, job)
        if symbol is not None:
            await audit.record(connection, by, "dlq.delete", str(job), symbol=symbol)
    return symbol is not None
