-- Bars, partitioned by time.
--
-- Partitions are made before a write by ensure_candle_partition(interval, moment):
--   candles_intraday   by interval, then 1m by month and the longer ones by year, so that old minutes can be
--                      dropped without losing the hours of the same time
--   candles_daily      by decade
-- There is no default partition: attaching to a table that has one must scan and lock it. A bar outside every
-- partition is refused.
--
-- Columns are ordered by width, which packs a row without holes.

CREATE TABLE candles_intraday (
    ts          timestamptz NOT NULL,                       -- bar open
    open        double precision NOT NULL,
    high        double precision NOT NULL,
    low         double precision NOT NULL,
    close       double precision NOT NULL,
    volume      double precision,                           -- null: unknown
    ingested_at timestamptz NOT NULL DEFAULT now(),         -- when this revision was written
    trade_count bigint,                                     -- null: unknown
    revision    integer NOT NULL DEFAULT 0,                 -- how often the values were changed
    is_final    boolean NOT NULL DEFAULT true,
    aligned     boolean NOT NULL DEFAULT true,              -- false: ts is off the grid of its interval
    symbol      text NOT NULL,
    interval    text NOT NULL,
    source      text NOT NULL,                              -- provider that gave the values
    PRIMARY KEY (symbol, interval, ts),
    -- In PostgreSQL NaN is greater than infinity, so these refuse NaN and infinity in every price.
    CONSTRAINT prices_in_order CHECK (
        low > 0 AND low <= open AND open <= high AND low <= close AND close <= high AND high < 'Infinity'
    ),
    CONSTRAINT volume_not_negative CHECK (volume >= 0 AND volume < 'Infinity'),
    CONSTRAINT trade_count_not_negative CHECK (trade_count >= 0),
    CONSTRAINT source_is_short_ascii CHECK (
        octet_length(source) BETWEEN 1 AND 24 AND octet_length(source) = length(source)
    )
) PARTITION BY LIST (interval);

CREATE TABLE candles_daily (
    LIKE candles_intraday INCLUDING ALL,
    CONSTRAINT one_row_per_session CHECK (interval = '1d')
) PARTITION BY RANGE (ts);

CREATE TABLE candles_intraday_1m  PARTITION OF candles_intraday FOR VALUES IN ('1m')  PARTITION BY RANGE (ts);
CREATE TABLE candles_intraday_5m  PARTITION OF candles_intraday FOR VALUES IN ('5m')  PARTITION BY RANGE (ts);
CREATE TABLE candles_intraday_15m PARTITION OF candles_intraday FOR VALUES IN ('15m') PARTITION BY RANGE (ts);
CREATE TABLE candles_intraday_30m PARTITION OF candles_intraday FOR VALUES IN ('30m') PARTITION BY RANGE (ts);
CREATE TABLE candles_intraday_1h  PARTITION OF candles_intraday FOR VALUES IN ('1h')  PARTITION BY RANGE (ts);

-- Name and half-open range of the partition that holds a bar of `bar_interval` at `moment`.
CREATE FUNCTION candle_partition(
    bar_interval text, moment timestamptz,
    OUT parent text, OUT name text, OUT starts timestamptz, OUT ends timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT parent,
           parent || to_char(starts AT TIME ZONE 'UTC', CASE unit WHEN 'month' THEN '_YYYY_MM' ELSE '_YYYY' END),
           starts,
           (starts AT TIME ZONE 'UTC' + ('1 ' || unit)::interval) AT TIME ZONE 'UTC'
    FROM (
        SELECT *, date_trunc(unit, moment, 'UTC') AS starts
        FROM (
            SELECT CASE bar_interval WHEN '1d' THEN 'candles_daily' ELSE 'candles_intraday_' || bar_interval END
                       AS parent,
                   CASE bar_interval WHEN '1d' THEN 'decade' WHEN '1m' THEN 'month' ELSE 'year' END AS unit
        ) AS kind
    ) AS cut
$$;

-- Make the partition unless it is there. Any number of writers may call it at once: the table is made apart
-- and then attached, which blocks neither readers nor writers of the other partitions.
CREATE FUNCTION ensure_candle_partition(bar_interval text, moment timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    part record;
BEGIN
    SELECT * INTO part FROM candle_partition(bar_interval, moment);
    IF to_regclass(part.name) IS NOT NULL THEN
        RETURN;
    END IF;
    -- The lock that attaching takes anyway. Unlike an advisory one it makes us see what others have committed.
    EXECUTE format('LOCK TABLE ONLY %I IN SHARE UPDATE EXCLUSIVE MODE', part.parent);
    IF to_regclass(part.name) IS NOT NULL THEN
        RETURN;                                             -- another writer made it while we waited
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part.name, part.parent);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   part.parent, part.name, part.starts, part.ends);
END
$$;

CREATE VIEW market_data AS
    SELECT symbol, interval, ts AS timestamp, open, high, low, close, volume, trade_count, source, revision,
           is_final, aligned, ingested_at
    FROM candles_intraday
    UNION ALL
    SELECT symbol, interval, ts, open, high, low, close, volume, trade_count, source, revision,
           is_final, aligned, ingested_at
    FROM candles_daily;
