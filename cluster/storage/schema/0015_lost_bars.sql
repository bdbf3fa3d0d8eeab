-- Bars that were lost by a change are looked for like deleted ones: no longer final, or under another key.

CREATE FUNCTION note_lost_bars() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gap_dirty_ranges (interval, symbol, start_ts, end_ts)
    SELECT interval, symbol, min(ts), max(ts) + interval '1 microsecond'
    FROM (SELECT interval, symbol, ts FROM before WHERE is_final
          EXCEPT SELECT interval, symbol, ts FROM after WHERE is_final) AS lost
    GROUP BY interval, symbol;
    RETURN NULL;
END
$$;

-- Compressed tables tell of changes by row only, as in `timescale/hypertables.sql`.
DO $$
DECLARE
    candles text;
BEGIN
    FOREACH candles IN ARRAY ARRAY['candles_intraday', 'candles_daily'] LOOP
        IF candle_storage() = 'native' THEN
            EXECUTE format('CREATE TRIGGER bars_lost AFTER UPDATE ON %I REFERENCING OLD TABLE AS before '
                           'NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION note_lost_bars()', candles);
        ELSE
            EXECUTE format('CREATE TRIGGER bars_lost AFTER UPDATE ON %I FOR EACH ROW WHEN (OLD.is_final AND '
                           '(NOT NEW.is_final OR (OLD.symbol, OLD.interval, OLD.ts) '
                           'IS DISTINCT FROM (NEW.symbol, NEW.interval, NEW.ts))) '
                           'EXECUTE FUNCTION note_deleted_bars()', candles);
        END IF;
    END LOOP;
END
$$;
