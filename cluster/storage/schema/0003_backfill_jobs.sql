-- The durable backfill queue, its history, and the ranges known to be empty at a provider.

-- One row a job. A range is half-open, start_ts <= bar open < end_ts.
--   ready   waits until run_at, then goes in the order of due
--   leased  an attempt works on it; lease_token, never the worker's name, is the right to finish it
--   done    finished; kept as history
--   dead    given up, with the reason; waits for a person
--   merged  was ready and went into the job merged_into
CREATE TABLE backfill_jobs (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol       text NOT NULL,
    interval     text NOT NULL,
    provider     text,                                     -- null: whoever is entitled to it
    start_ts     timestamptz NOT NULL,
    end_ts       timestamptz NOT NULL,
    tier         text NOT NULL CHECK (tier IN ('T0', 'T1', 'T2', 'T3')),
    state        text NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'leased', 'done', 'dead', 'merged')),
    attempt      integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    enqueued_at  timestamptz NOT NULL DEFAULT now(),
    run_at       timestamptz NOT NULL DEFAULT now(),
    due          timestamptz NOT NULL,                     -- virtual deadline: enqueued_at + tier x step
    lease_token  uuid,
    lease_until  timestamptz,
    leased_by    text,
    reason       text,                                     -- why it waits again, or why it is dead
    rows_written bigint,
    merged_into  bigint REFERENCES backfill_jobs ON DELETE CASCADE,
    started_at   timestamptz,                              -- of the first attempt
    finished_at  timestamptz,
    CHECK (start_ts < end_ts),
    CHECK ((state = 'leased') = (lease_token IS NOT NULL)),
    CHECK ((lease_token IS NULL) = (lease_until IS NULL)),
    CHECK ((state = 'merged') = (merged_into IS NOT NULL))
) WITH (
    -- Room on the page, and no index on lease_until: a heartbeat stays a heap-only update.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_analyze_scale_factor = 0.02
);

CREATE INDEX backfill_jobs_ready ON backfill_jobs (tier, due, id) WHERE state = 'ready';
CREATE INDEX backfill_jobs_leased ON backfill_jobs (tier) WHERE state = 'leased';
CREATE INDEX backfill_jobs_active ON backfill_jobs (symbol, interval, start_ts) WHERE state IN ('ready', 'leased');
CREATE INDEX backfill_jobs_dead ON backfill_jobs (symbol, interval, finished_at) WHERE state = 'dead';
-- A guard behind the advisory lock of enqueueing: two ready jobs never begin at the same bar.
CREATE UNIQUE INDEX backfill_jobs_ready_start ON backfill_jobs (symbol, interval, provider, start_ts)
    NULLS NOT DISTINCT WHERE state = 'ready';

-- One row an attempt, kept with its job.
CREATE TABLE backfill_attempts (
    token      uuid PRIMARY KEY,
    job_id     bigint NOT NULL REFERENCES backfill_jobs ON DELETE CASCADE,
    attempt    integer NOT NULL,
    worker     text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz,
    outcome    text CHECK (outcome IN ('done', 'failed', 'dead', 'snoozed', 'released', 'lease_expired')),
    message    text,
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);

CREATE INDEX backfill_attempts_job ON backfill_attempts (job_id, started_at);

-- Expected bars that a provider was asked for and did not have. Not asked for again before recheck_at.
CREATE TABLE known_gaps (
    symbol     text NOT NULL,
    interval   text NOT NULL,
    provider   text NOT NULL,
    start_ts   timestamptz NOT NULL,
    end_ts     timestamptz NOT NULL,
    cause      text NOT NULL CHECK (cause IN ('no_data', 'provider_hole', 'rejected')),
    times_seen integer NOT NULL DEFAULT 1 CHECK (times_seen > 0),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    recheck_at timestamptz NOT NULL,
    PRIMARY KEY (symbol, interval, provider, start_ts),
    CHECK (start_ts < end_ts)
);
