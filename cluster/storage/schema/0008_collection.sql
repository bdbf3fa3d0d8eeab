-- The last look of the collectors for the bars of each tier and interval, one row a shard of the symbols.

CREATE TABLE collection_sweeps (
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz NOT NULL,
    next_run_at  timestamptz NOT NULL,
    cadence_s    double precision NOT NULL,
    expected_lag_s double precision NOT NULL,               -- longest time from a bar's close to the look
    lag_p50_s    double precision,                          -- from the close of the newest bars to their commit
    lag_p99_s    double precision,                          -- null: nothing was due yet
    shard        integer NOT NULL,
    symbols      integer NOT NULL,
    idle         integer NOT NULL,                          -- nothing of them was due
    unserved     integer NOT NULL,                          -- no provider gives them
    failed       integer NOT NULL,                          -- every provider that was asked failed
    bars         integer NOT NULL,                          -- inserted or changed
    tier         text NOT NULL,
    interval     text NOT NULL,
    PRIMARY KEY (tier, interval, shard)
);
