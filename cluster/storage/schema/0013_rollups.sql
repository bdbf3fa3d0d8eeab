-- Bars of 5 minutes and of an hour, made of minutes.
--
-- candles_5m and candles_1h have the columns of the candle tables. What is older than a moment in
-- rollup_state is kept in tables, so that it outlives its minutes; what is younger is made when it is asked
-- for. With TimescaleDB continuous aggregates take the place of both (schema/timescale/hypertables.sql);
-- the two views stay.

-- Where hours begin anew on a UTC day: at openings and closes of the exchange, lunch breaks included. The
-- first of a day is its beginning, or what a session that is open then counts from. Days without a session
-- and calendars without sessions have no row: theirs are the hours of UTC.
CREATE TABLE session_cuts (
    calendar text NOT NULL,
    day      date NOT NULL,
    cuts     timestamptz[] NOT NULL,
    PRIMARY KEY (calendar, day)
);

CREATE TABLE rollup_state (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    kept_from    timestamptz NOT NULL DEFAULT '-infinity',  -- minutes before were given up; rollups stay as they are
    marked_until timestamptz NOT NULL DEFAULT '-infinity',  -- changes of minutes before are noted in rollup_dirty
    rolled_until timestamptz NOT NULL DEFAULT '-infinity'   -- rollups before come out of the tables
);
INSERT INTO rollup_state DEFAULT VALUES;

-- Minutes that were changed, or whose hours begin elsewhere by now: first <= ts <= last; `symbol` null: all.
CREATE TABLE rollup_dirty (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text,
    first  timestamptz NOT NULL,
    last   timestamptz NOT NULL
);

CREATE TABLE rollup_5m (
    ts          timestamptz NOT NULL,
    open        double precision NOT NULL,
    high        double precision NOT NULL,
    low         double precision NOT NULL,
    close       double precision NOT NULL,
    volume      double precision,
    trade_count bigint,
    ingested_at timestamptz NOT NULL,
    last_minute timestamptz NOT NULL,
    minutes     integer NOT NULL,
    all_final   boolean NOT NULL,
    symbol      text NOT NULL,
    PRIMARY KEY (symbol, ts)
);
CREATE TABLE rollup_1h (LIKE rollup_5m INCLUDING ALL);

-- time_bucket of TimescaleDB, which must be free to take its name.
CREATE FUNCTION rollup_bucket(width interval, moment timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT date_bin(width, moment, timestamptz '2000-01-03 00:00+00')
$$;

-- Open of the hour that `moment` is in, on the UTC day that begins at `day`; no hour goes over its end.
CREATE FUNCTION session_hour(moment timestamptz, day timestamptz, cuts timestamptz[]) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT greatest(day, coalesce(
        cuts[width_bucket(moment, cuts)] +
            floor(extract(epoch FROM moment - cuts[width_bucket(moment, cuts)]) / 3600) * interval '1 hour',
        date_trunc('hour', moment, 'UTC')
    ))
$$;

CREATE FUNCTION minutes_as_5m(starts timestamptz, past timestamptz) RETURNS SETOF rollup_5m
LANGUAGE sql STABLE AS $$
    SELECT rollup_bucket('5 minutes', ts),
           (array_agg(open ORDER BY ts))[1], max(high), min(low), (array_agg(close ORDER BY ts DESC))[1],
           sum(volume ORDER BY ts), sum(trade_count)::bigint, max(ingested_at), max(ts), count(*)::integer,
           bool_and(is_final), symbol
    FROM candles_intraday
    WHERE interval = '1m' AND ts >= starts AND ts < past
    GROUP BY symbol, rollup_bucket('5 minutes', ts)
$$;

CREATE FUNCTION minutes_as_1h(starts timestamptz, past timestamptz) RETURNS SETOF rollup_1h
LANGUAGE sql STABLE AS $$
    SELECT session_hour(bar.ts, rollup_bucket('1 day', bar.ts), cuts),
           (array_agg(open ORDER BY bar.ts))[1], max(high), min(low), (array_agg(close ORDER BY bar.ts DESC))[1],
           sum(volume ORDER BY bar.ts), sum(trade_count)::bigint, max(ingested_at), max(bar.ts),
           count(*)::integer, bool_and(is_final), bar.symbol
    FROM candles_intraday AS bar
    LEFT JOIN symbol_universe AS member ON member.symbol = bar.symbol
    LEFT JOIN session_cuts AS session
        ON session.calendar = member.calendar AND session.day = (bar.ts AT TIME ZONE 'UTC')::date
    WHERE bar.interval = '1m' AND bar.ts >= starts AND bar.ts < past
    GROUP BY bar.symbol, session_hour(bar.ts, rollup_bucket('1 day', bar.ts), cuts)
$$;

CREATE FUNCTION rolled_until() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT rolled_until FROM rollup_state
$$;

CREATE VIEW rolled_5m AS
    SELECT * FROM rollup_5m WHERE ts < rolled_until()
    UNION ALL
    SELECT * FROM minutes_as_5m(rolled_until(), 'infinity');

CREATE VIEW rolled_1h AS
    SELECT * FROM rollup_1h WHERE ts < rolled_until()
    UNION ALL
    SELECT * FROM minutes_as_1h(rolled_until(), 'infinity');

-- A rollup is final when its minutes are and no other can come: the last one is there, or two minutes have
-- passed since its end.
CREATE VIEW candles_5m AS
    SELECT ts, open, high, low, close, volume, ingested_at, trade_count, 0 AS revision,
           all_final AND (last_minute >= ts + interval '4 minutes' OR ts + interval '7 minutes' <= now())
               AS is_final,
           true AS aligned, symbol, '5m'::text AS interval, 'rollup'::text AS source, minutes
    FROM rolled_5m;

CREATE VIEW candles_1h AS
    SELECT ts, open, high, low, close, volume, ingested_at, trade_count, 0 AS revision,
           all_final AND (last_minute >= ts + interval '59 minutes' OR ts + interval '62 minutes' <= now())
               AS is_final,
           true AS aligned, symbol, '1h'::text AS interval, 'rollup'::text AS source, minutes
    FROM rolled_1h;

-- 'native' or 'timescale'.
CREATE FUNCTION candle_storage() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'native' $$;

-- What TimescaleDB needs of a writer, which native storage does not.
--
-- Hold, to the end of the transaction, the chunks with these numbers (weeks since 1970, 365 days for 1d) back
-- from being compressed: a writer who has read a chunk and one who compresses it would wait for each other.
CREATE FUNCTION hold_chunks(bar_interval text, numbers integer[]) RETURNS void
LANGUAGE sql IMMUTABLE AS $$ SELECT NULL::void $$;

-- Whether bars of [first, last] are in compressed chunks.
CREATE FUNCTION in_columnstore(bar_interval text, first timestamptz, last timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$ SELECT false $$;

-- Writers hold this lock in common from their first minute to the end of their transaction. Who moves
-- marked_until takes it alone, so that no change is before the mark for itself and after it for others.
CREATE FUNCTION note_changed_minutes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1919904876);       -- "roll"
    SELECT marked_until INTO until FROM rollup_state;
    INSERT INTO rollup_dirty (symbol, first, last)
    SELECT symbol, min(ts), max(ts) FROM changed WHERE interval = '1m' AND ts < until
    GROUP BY symbol, date_trunc('day', ts, 'UTC');
    RETURN NULL;
END
$$;

CREATE FUNCTION note_cleared_minutes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1919904876);
    INSERT INTO rollup_dirty (symbol, first, last) VALUES (NULL, '-infinity', 'infinity');
    RETURN NULL;
END
$$;

CREATE TRIGGER note_new_minutes AFTER INSERT ON candles_intraday REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_changed_minutes();
CREATE TRIGGER note_old_minutes AFTER UPDATE ON candles_intraday REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_changed_minutes();
CREATE TRIGGER note_moved_minutes AFTER UPDATE ON candles_intraday REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_changed_minutes();
CREATE TRIGGER note_gone_minutes AFTER DELETE ON candles_intraday REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_changed_minutes();
CREATE TRIGGER note_cleared_minutes AFTER TRUNCATE ON candles_intraday
    FOR EACH STATEMENT EXECUTE FUNCTION note_cleared_minutes();

-- Another calendar, other hours.
CREATE FUNCTION note_calendar_of_symbol() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.calendar = OLD.calendar THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock_shared(1919904876);
    INSERT INTO rollup_dirty (symbol, first, last)
    SELECT NEW.symbol, first, last
    FROM (SELECT min(ts) AS first, max(ts) AS last FROM candles_intraday
          WHERE symbol = NEW.symbol AND interval = '1m') AS kept
    WHERE first IS NOT NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_calendar AFTER INSERT OR UPDATE OF calendar ON symbol_universe
    FOR EACH ROW EXECUTE FUNCTION note_calendar_of_symbol();

CREATE FUNCTION note_session_cuts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1919904876);
    INSERT INTO rollup_dirty (symbol, first, last)
    SELECT symbol, min(day)::timestamp AT TIME ZONE 'UTC', (max(day) + 1)::timestamp AT TIME ZONE 'UTC'
    FROM changed JOIN symbol_universe USING (calendar)
    WHERE (SELECT marked_until FROM rollup_state) > '-infinity'
    GROUP BY symbol;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_new_cuts AFTER INSERT ON session_cuts REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_session_cuts();
CREATE TRIGGER note_changed_cuts AFTER UPDATE ON session_cuts REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_session_cuts();
CREATE TRIGGER note_gone_cuts AFTER DELETE ON session_cuts REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_session_cuts();
