-- What the universe takes, by every way in: a row that cannot be read would be left out of everything.

-- A calendar that nobody names follows from what the symbol is; see `default_calendar` in cluster/market.
ALTER TABLE symbol_universe ALTER COLUMN calendar DROP DEFAULT;

CREATE FUNCTION fill_universe_calendar() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.calendar := CASE NEW.asset_type WHEN 'crypto' THEN '24/7' ELSE 'XNYS' END;
    RETURN NEW;
END
$$;
CREATE TRIGGER fill_calendar BEFORE INSERT ON symbol_universe
    FOR EACH ROW WHEN (NEW.calendar IS NULL) EXECUTE FUNCTION fill_universe_calendar();

-- The default was New York's calendar for crypto too. As every write, this is a version.
WITH mended AS (
    UPDATE symbol_universe SET calendar = '24/7', updated_at = now()
    WHERE asset_type = 'crypto' AND calendar = 'XNYS' RETURNING symbol
)
INSERT INTO universe_versions (version_tag, source_meta)
SELECT '0018_universe_checks',
       jsonb_build_object('source', 'migration', 'changed', jsonb_agg(symbol ORDER BY symbol))
FROM mended HAVING count(*) > 0;

-- The names are what whoever breaks them reads. Rows that are there already are left as they are: readers skip
-- and log those that they cannot read. Each can be set inactive as it is, alone or with many others at once.
ALTER TABLE symbol_universe RENAME CONSTRAINT symbol_universe_tier_check TO "tier: T0, T1, T2 or T3";
ALTER TABLE symbol_universe
    ADD CONSTRAINT "symbol: 1 to 32 of A-Z 0-9 . - =, ^ may come first"
        CHECK (NOT active OR symbol ~ '^\^?[A-Z0-9][A-Z0-9.=-]*$' AND length(symbol) <= 32) NOT VALID,
    ADD CONSTRAINT "asset_type: equity, etf, index, crypto, fx or future"
        CHECK (NOT active OR asset_type IN ('equity', 'etf', 'index', 'crypto', 'fx', 'future')) NOT VALID,
    ADD CONSTRAINT "exchange must not be empty" CHECK (NOT active OR btrim(exchange) <> '') NOT VALID,
    ADD CONSTRAINT "calendar must not be empty" CHECK (NOT active OR btrim(calendar) <> '') NOT VALID,
    ADD CONSTRAINT "currency must not be empty" CHECK (NOT active OR btrim(currency) <> '') NOT VALID;
