"""Forgets jobs that finished long ago, so that the table of the queue stays small."""

from __future__ import annotations

from datetime import timedelta

from cluster.storage.database import Database

PERIOD_S = 3_600.0

STEP = 5_000
"""Most jobs that one statement looks at: none holds its locks for long, and vacuum keeps up."""

# Along the primary key, without an index of its own that every completion would have to keep. Jobs that are
# ready, leased or dead stay, whatever their age, with those that were merged into them, whose history is
# theirs; and a job that others were merged into as long as those.
_STEP = """
WITH looked AS MATERIALIZED (
    SELECT id, state, finished_at, merged_into FROM backfill_jobs WHERE id > $1 ORDER BY id LIMIT $2),
old AS MATERIALIZED (
    SELECT id FROM looked
    WHERE state IN ('done', 'merged') AND finished_at < clock_timestamp() - $3::interval
      AND NOT EXISTS (SELECT FROM backfill_jobs j WHERE j.merged_into = looked.id)
      AND NOT EXISTS (
          SELECT FROM backfill_jobs j
          WHERE j.id = looked.merged_into AND j.state IN ('ready', 'leased', 'dead'))),
history AS (DELETE FROM backfill_attempts WHERE job_id IN (SELECT id FROM old)),
gone AS (DELETE FROM backfill_jobs WHERE id IN (SELECT id FROM old))
SELECT max(id) FROM looked
"""


async def prune(database: Database, keep_s: float, *, step: int = STEP) -> None:
    """Delete jobs that were done or merged more than `keep_s` seconds ago, and their attempts.

    In short transactions, so it may end in its midst, and two may do it at once.
    """
    last: int | None = 0
    while last is not None:
        async with database.connection() as connection:
            last = await connection.fetchval(_STEP, last, step, timedelta(seconds=keep_s))
