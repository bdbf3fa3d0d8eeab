"""Attempts that the database itself broke off do not count."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from cluster.storage.backfill_records import Lease
from cluster.storage.database import Database

# What somebody still works on is left for the next time.
_GIVE_BACK = """
WITH mine AS (
    SELECT j.* FROM backfill_jobs j
    JOIN unnest($1::bigint[], $2::uuid[]) AS mine (id, token) ON j.id = mine.id AND j.lease_token = mine.token
    WHERE j.started_at > clock_timestamp() - $4::interval
    ORDER BY j.id FOR UPDATE OF j SKIP LOCKED),
kept AS (
    INSERT INTO backfill_attempts (job_id, token, attempt, worker, started_at, ended_at, outcome, message)
    SELECT id, lease_token, attempt, leased_by, leased_at, clock_timestamp(), 'snoozed', $3 FROM mine)
UPDATE backfill_jobs j
SET state = 'ready', attempt = j.attempt - 1, reason = $3, lease_token = NULL, lease_until = NULL,
    run_at = clock_timestamp() + (0.5 + random() / 2) * interval '1 second' * least(2 ^ waits, 60)
FROM mine CROSS JOIN LATERAL (
    SELECT least(count(*), 10) AS waits FROM backfill_attempts a
    WHERE a.job_id = mine.id AND a.outcome = 'snoozed' AND a.ended_at > clock_timestamp() - interval '1 hour'
) AS before
WHERE j.id = mine.id
"""

# A statement of its own: it sees what has become of those that were not there to be given back. A running
# attempt of another stays counted.
_FORGIVE = """
WITH mine AS (SELECT * FROM unnest($1::bigint[], $2::uuid[]) AS mine (id, token)),
excused AS (
    UPDATE backfill_attempts a SET outcome = 'snoozed', message = $3 FROM mine
    WHERE a.job_id = mine.id AND a.token = mine.token AND a.outcome = 'lease_expired'
    RETURNING a.job_id),
forgiven AS (
    UPDATE backfill_jobs j
    SET attempt = greatest(j.attempt - e.attempts, CASE j.state WHEN 'leased' THEN 1 ELSE 0 END)
    FROM (SELECT job_id, count(*)::int AS attempts FROM excused GROUP BY job_id) AS e
    WHERE j.id = e.job_id AND j.state IN ('ready', 'leased')
      AND j.started_at > clock_timestamp() - $4::interval)
SELECT j.lease_token FROM backfill_jobs j JOIN mine ON j.id = mine.id AND j.lease_token = mine.token
"""


async def excuse(
    database: Database, leases: Collection[Lease], reason: str, longest: timedelta
) -> list[Lease]:
    """Give the jobs back without using an attempt, whether the leases have ended meanwhile or not.

    They are ready again after a second, which doubles up to a minute for a job that waited in the last hour;
    those that somebody else has taken meanwhile only get the attempt back. A job whose first attempt was more
    than `longest` ago uses its attempt after all. Returns the leases that are still held, to be asked for
    again: a transaction of theirs has not ended yet, or they are too old.
    """
    ids, tokens = [lease.id for lease in leases], [lease.token for lease in leases]
    async with database.transaction() as connection:
        await connection.execute(_GIVE_BACK, ids, tokens, reason, longest)
        held = {row["lease_token"] for row in await connection.fetch(_FORGIVE, ids, tokens, reason, longest)}
    return [lease for lease in leases if lease.token in held]
