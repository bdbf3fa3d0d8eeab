-- Dead jobs are listed, put into the queue again, and deleted.

ALTER TABLE backfill_jobs ADD COLUMN requeue_count integer NOT NULL DEFAULT 0 CHECK (requeue_count >= 0);

CREATE INDEX backfill_jobs_dead_id ON backfill_jobs (id) WHERE state = 'dead';
-- Deleting a job looks for those that were merged into it.
CREATE INDEX backfill_jobs_merged_into ON backfill_jobs (merged_into) WHERE merged_into IS NOT NULL;
