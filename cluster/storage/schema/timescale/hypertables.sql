-- The candle tables as hypertables, and their rollups as continuous aggregates. One transaction; what is
-- stored goes along. The native tables of 0002 and 0013 give their names to those made here.

-- Minutes in chunks of their own, so that old ones can be dropped without the hours of the same time: the
-- range of a hash dimension is cut in halves.
CREATE FUNCTION interval_slice(bar_interval anyelement) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT CASE bar_interval::text WHEN '1m' THEN 0 ELSE 1 << 30 END $$;

CREATE TABLE hyper_intraday (LIKE candles_intraday INCLUDING ALL);
CREATE TABLE hyper_daily (LIKE candles_daily INCLUDING ALL);
SELECT create_hypertable('hyper_intraday', by_range('ts', interval '7 days'), create_default_indexes => false);
SELECT add_dimension('hyper_intraday', by_hash('interval', 2, partition_func => 'interval_slice'));
SELECT create_hypertable('hyper_daily', by_range('ts', interval '365 days'), create_default_indexes => false);
INSERT INTO hyper_intraday SELECT * FROM candles_intraday;
INSERT INTO hyper_daily SELECT * FROM candles_daily;

-- What the native table has no partition for.
ALTER TABLE hyper_intraday ADD CONSTRAINT interval_known CHECK (interval IN ('1m', '5m', '15m', '30m', '1h'));

CREATE TEMP TABLE kept_views ON COMMIT DROP AS
    SELECT name, pg_get_viewdef(name::regclass) AS query FROM unnest('{candles_5m, candles_1h}'::text[]) AS name;
CREATE TEMP TABLE kept_5m ON COMMIT DROP AS
    SELECT * FROM rollup_5m WHERE ts < (SELECT kept_from FROM rollup_state);
CREATE TEMP TABLE kept_1h ON COMMIT DROP AS
    SELECT * FROM rollup_1h WHERE ts < (SELECT kept_from FROM rollup_state);
DROP VIEW market_data, candles_5m, candles_1h, rolled_5m, rolled_1h;
DROP FUNCTION minutes_as_5m, minutes_as_1h;
DROP TABLE candles_intraday, candles_daily, rollup_5m, rollup_1h;
ALTER TABLE hyper_intraday RENAME TO candles_intraday;
ALTER TABLE hyper_daily RENAME TO candles_daily;
ALTER INDEX hyper_intraday_pkey RENAME TO candles_intraday_pkey;
ALTER INDEX hyper_daily_pkey RENAME TO candles_daily_pkey;
ALTER TABLE candles_intraday SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol, interval', timescaledb.orderby = 'ts'
);
ALTER TABLE candles_daily SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol, interval', timescaledb.orderby = 'ts'
);

-- The aggregates of minutes_as_5m and minutes_as_1h. Hours are no equal buckets of time, so those of an
-- exchange are groups in buckets of a day.
CREATE MATERIALIZED VIEW rolled_5m
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
    SELECT time_bucket('5 minutes', ts) AS ts,
           (array_agg(open ORDER BY ts))[1] AS open, max(high) AS high, min(low) AS low,
           (array_agg(close ORDER BY ts DESC))[1] AS close, sum(volume ORDER BY ts) AS volume,
           sum(trade_count)::bigint AS trade_count, max(ingested_at) AS ingested_at, max(ts) AS last_minute,
           count(*)::integer AS minutes, bool_and(is_final) AS all_final, symbol
    FROM candles_intraday
    WHERE interval = '1m'
    GROUP BY symbol, time_bucket('5 minutes', ts)
WITH NO DATA;

CREATE MATERIALIZED VIEW rolled_1h
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
    SELECT session_hour(bar.ts, time_bucket('1 day', bar.ts), cuts) AS ts,
           (array_agg(open ORDER BY bar.ts))[1] AS open, max(high) AS high, min(low) AS low,
           (array_agg(close ORDER BY bar.ts DESC))[1] AS close, sum(volume ORDER BY bar.ts) AS volume,
           sum(trade_count)::bigint AS trade_count, max(ingested_at) AS ingested_at,
           max(bar.ts) AS last_minute, count(*)::integer AS minutes, bool_and(is_final) AS all_final,
           bar.symbol, time_bucket('1 day', bar.ts) AS day
    FROM candles_intraday AS bar
    LEFT JOIN symbol_universe AS member ON member.symbol = bar.symbol
    LEFT JOIN session_cuts AS session
        ON session.calendar = member.calendar AND session.day = (bar.ts AT TIME ZONE 'UTC')::date
    WHERE bar.interval = '1m'
    GROUP BY bar.symbol, time_bucket('1 day', bar.ts),
             session_hour(bar.ts, time_bucket('1 day', bar.ts), cuts)
WITH NO DATA;

DO $$
DECLARE
    aggregate record;
    kept record;
BEGIN
    -- Rollups whose minutes were given up cannot be made again.
    FOR aggregate IN SELECT view_name, materialization_hypertable_schema AS home,
                            materialization_hypertable_name AS name
                     FROM timescaledb_information.continuous_aggregates
                     WHERE view_name IN ('rolled_5m', 'rolled_1h') AND view_schema = current_schema() LOOP
        EXECUTE format(
            'INSERT INTO %I.%I (ts, open, high, low, close, volume, trade_count, ingested_at, last_minute, minutes,
                                all_final, symbol %s)
             SELECT ts, open, high, low, close, volume, trade_count, ingested_at, last_minute, minutes, all_final,
                    symbol %s FROM %I',
            aggregate.home, aggregate.name,
            CASE aggregate.view_name WHEN 'rolled_1h' THEN ', day' END,
            CASE aggregate.view_name WHEN 'rolled_1h' THEN ', time_bucket(''1 day'', ts)' END,
            replace(aggregate.view_name, 'rolled', 'kept'));
    END LOOP;
    FOR kept IN SELECT * FROM kept_views LOOP
        EXECUTE format('CREATE VIEW %I AS %s', kept.name, kept.query);
    END LOOP;
END
$$;

-- The conditions say nothing new. Without them TimescaleDB 2.29.2 fails to plan ORDER BY symbol, interval,
-- timestamp over compressed chunks ("invalid array position").
CREATE VIEW market_data AS
    SELECT symbol, interval, ts AS timestamp, open, high, low, close, volume, trade_count, source, revision,
           is_final, aligned, ingested_at
    FROM candles_intraday WHERE interval <> '1d'
    UNION ALL
    SELECT symbol, interval, ts, open, high, low, close, volume, trade_count, source, revision,
           is_final, aligned, ingested_at
    FROM candles_daily WHERE interval = '1d';

-- A batch that revises more compressed bars than this (100 000 unless set) would fail; batches are bounded
-- before they come here.
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0',
                   current_database());
END $$;

-- Chunks are made by the write itself.
CREATE OR REPLACE FUNCTION ensure_candle_partition(bar_interval text, moment timestamptz) RETURNS void
LANGUAGE sql IMMUTABLE AS $$ SELECT NULL::void $$;

CREATE OR REPLACE FUNCTION candle_storage() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'timescale' $$;

-- "hold"; the sign keeps daily chunks apart from the others.
CREATE OR REPLACE FUNCTION hold_chunks(bar_interval text, numbers integer[]) RETURNS void
LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock_shared(1752132708, CASE bar_interval WHEN '1d' THEN -1 - number ELSE number END)
    FROM unnest(numbers) AS number
$$;

-- The same, alone: for who compresses a chunk that begins at `starts`.
CREATE FUNCTION hold_chunk_alone(hypertable text, starts timestamptz) RETURNS void
LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(1752132708, CASE hypertable
        WHEN 'candles_daily' THEN -1 - floor(extract(epoch FROM starts) / 86400 / 365)::integer
        ELSE floor(extract(epoch FROM starts) / 86400 / 7)::integer
    END)
$$;

CREATE OR REPLACE FUNCTION in_columnstore(bar_interval text, first timestamptz, last timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM timescaledb_information.chunks
        WHERE hypertable_schema = current_schema() AND is_compressed
          AND hypertable_name = CASE bar_interval WHEN '1d' THEN 'candles_daily' ELSE 'candles_intraday' END
          AND range_start <= last AND range_end > first
    )
$$;

-- Continuous aggregates note changed minutes by themselves; that all of them are gone is noted still.
CREATE TRIGGER note_cleared_minutes AFTER TRUNCATE ON candles_intraday
    FOR EACH STATEMENT EXECUTE FUNCTION note_cleared_minutes();
DROP FUNCTION note_changed_minutes, rolled_until;

-- 0009 notes deleted bars by statement, which compressed tables do not allow. By row, the whole day (year)
-- of a deleted bar is noted once as long as its neighbours follow.
CREATE OR REPLACE FUNCTION note_deleted_bars() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    span text := CASE OLD.interval WHEN '1d' THEN 'year' ELSE 'day' END;
    starts timestamptz := date_trunc(span, OLD.ts, 'UTC');
    noted text := format('%s %s %s %s', pg_current_xact_id(), OLD.interval, starts, OLD.symbol);
BEGIN
    IF current_setting('finsight.noted_bars', true) IS DISTINCT FROM noted THEN
        INSERT INTO gap_dirty_ranges (interval, symbol, start_ts, end_ts)
        VALUES (OLD.interval, OLD.symbol, starts, starts + ('1 ' || span)::interval);
        PERFORM set_config('finsight.noted_bars', noted, true);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER bars_deleted AFTER DELETE ON candles_intraday FOR EACH ROW EXECUTE FUNCTION note_deleted_bars();
CREATE TRIGGER bars_deleted AFTER DELETE ON candles_daily FOR EACH ROW EXECUTE FUNCTION note_deleted_bars();
-- As 0015 notes changed ones.
CREATE TRIGGER bars_lost AFTER UPDATE ON candles_intraday FOR EACH ROW
    WHEN (OLD.is_final AND (NOT NEW.is_final
          OR (OLD.symbol, OLD.interval, OLD.ts) IS DISTINCT FROM (NEW.symbol, NEW.interval, NEW.ts)))
    EXECUTE FUNCTION note_deleted_bars();
CREATE TRIGGER bars_lost AFTER UPDATE ON candles_daily FOR EACH ROW
    WHEN (OLD.is_final AND (NOT NEW.is_final
          OR (OLD.symbol, OLD.interval, OLD.ts) IS DISTINCT FROM (NEW.symbol, NEW.interval, NEW.ts)))
    EXECUTE FUNCTION note_deleted_bars();
DROP FUNCTION note_lost_bars;
CREATE TRIGGER bars_truncated AFTER TRUNCATE ON candles_intraday
    FOR EACH STATEMENT EXECUTE FUNCTION note_truncated_bars('1m', '5m', '15m', '30m', '1h');
CREATE TRIGGER bars_truncated AFTER TRUNCATE ON candles_daily
    FOR EACH STATEMENT EXECUTE FUNCTION note_truncated_bars('1d');

DELETE FROM rollup_dirty;
UPDATE rollup_state SET marked_until = '-infinity', rolled_until = '-infinity';
