-- What is missing, kept from scan to scan, so that a scan looks only at what has changed since the last.

-- Sessions that differ from the library's calendar: other hours, or closed when both times are null.
CREATE TABLE calendar_overrides (
    calendar   text NOT NULL CHECK (calendar <> ''),
    session    date NOT NULL,                               -- the exchange's local date
    open       timestamptz,
    close      timestamptz,
    reason     text NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (calendar, session),
    CHECK ((open IS NULL) = (close IS NULL)),
    CHECK (open < close)
);

-- Everything with expected_from <= ts < scanned_to has been compared with `calendar`.
CREATE TABLE gap_watermarks (
    symbol        text NOT NULL,
    interval      text NOT NULL,
    calendar      text NOT NULL,
    expected_from timestamptz NOT NULL,                     -- of the oldest bar ever seen, so that its loss is one
    scanned_to    timestamptz NOT NULL,
    full_at       timestamptz NOT NULL,                     -- when all of it was compared at once
    PRIMARY KEY (symbol, interval)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);  -- moves on in every scan

-- To be compared again: bars were deleted, or the calendar was changed. Neither symbol nor calendar: everything.
CREATE TABLE gap_dirty_ranges (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    interval text NOT NULL,
    symbol   text,
    calendar text,
    start_ts timestamptz NOT NULL,
    end_ts   timestamptz NOT NULL
);

-- Missing bars that follow each other and are missing for one cause, `start_ts <= ts < end_ts`.
CREATE TABLE gaps (
    symbol        text NOT NULL,
    interval      text NOT NULL,
    start_ts      timestamptz NOT NULL,
    end_ts        timestamptz NOT NULL,
    missing       integer NOT NULL CHECK (missing > 0),
    cause         text NOT NULL CHECK (cause IN (
        'not_fetched', 'no_data', 'provider_hole', 'rejected', 'no_trades', 'venue_down', 'unfillable')),
    evidence      text NOT NULL DEFAULT '',
    found_at      timestamptz NOT NULL,
    checked_at    timestamptz NOT NULL,
    tries         integer NOT NULL DEFAULT 0,               -- how often it was queued
    next_check_at timestamptz NOT NULL,
    PRIMARY KEY (symbol, interval, start_ts),
    CHECK (start_ts < end_ts)
);

-- One statement, one row a symbol. Where the candle tables are made anew (as hypertables), so are these two.
CREATE FUNCTION note_deleted_bars() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gap_dirty_ranges (interval, symbol, start_ts, end_ts)
    SELECT interval, symbol, min(ts), max(ts) + interval '1 microsecond' FROM deleted GROUP BY interval, symbol;
    RETURN NULL;
END
$$;

-- Its arguments are the intervals that the table holds.
CREATE FUNCTION note_truncated_bars() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gap_dirty_ranges (interval, start_ts, end_ts)
    SELECT unnest(TG_ARGV), '-infinity', 'infinity';
    RETURN NULL;
END
$$;

CREATE TRIGGER bars_deleted AFTER DELETE ON candles_intraday
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION note_deleted_bars();
CREATE TRIGGER bars_deleted AFTER DELETE ON candles_daily
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION note_deleted_bars();
CREATE TRIGGER bars_truncated AFTER TRUNCATE ON candles_intraday
    FOR EACH STATEMENT EXECUTE FUNCTION note_truncated_bars('1m', '5m', '15m', '30m', '1h');
CREATE TRIGGER bars_truncated AFTER TRUNCATE ON candles_daily
    FOR EACH STATEMENT EXECUTE FUNCTION note_truncated_bars('1d');

-- A session lies within a day of its date, wherever the exchange is.
CREATE FUNCTION note_changed_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gap_dirty_ranges (interval, calendar, start_ts, end_ts)
    SELECT interval, changed.calendar, day - interval '1 day', day + interval '2 days'
    FROM (SELECT (OLD).calendar, (OLD).session UNION SELECT (NEW).calendar, (NEW).session) AS changed,
         unnest(ARRAY['1m', '5m', '15m', '30m', '1h', '1d']) AS interval,
         LATERAL (SELECT changed.session::timestamp AT TIME ZONE 'UTC') AS utc (day)
    WHERE changed.calendar IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE TRIGGER session_changed AFTER INSERT OR UPDATE OR DELETE ON calendar_overrides
    FOR EACH ROW EXECUTE FUNCTION note_changed_session();
