-- The universe as it was at any time, who changed what, and the settings that were taken over while it ran.

-- One row for every state of a symbol, valid in [valid_from, valid_to). Kept by triggers, so that statements
-- of anybody are in it. Rows are never deleted: a symbol that was deleted keeps its history.
CREATE TABLE symbol_universe_history (
    symbol     text NOT NULL,
    valid_from timestamptz NOT NULL,
    valid_to   timestamptz CHECK (valid_to > valid_from),   -- null: still
    exchange   text NOT NULL,
    asset_type text NOT NULL,
    adv_21d    double precision,
    mkt_cap    double precision,
    tier       text NOT NULL,
    active     boolean NOT NULL,
    calendar   text NOT NULL,
    name       text NOT NULL,
    currency   text NOT NULL,
    PRIMARY KEY (symbol, valid_from)
);
CREATE UNIQUE INDEX symbol_universe_now ON symbol_universe_history (symbol) WHERE valid_to IS NULL;

-- End the state of a symbol that holds, and tell when the next one begins: with the transaction, so that all
-- it changes holds from one instant on. A state of this very transaction never held for others: it goes. One
-- of a transaction that began later and was faster keeps its microsecond.
CREATE FUNCTION end_universe_state(ended text) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz;
BEGIN
    DELETE FROM symbol_universe_history WHERE symbol = ended AND valid_from = now() AND valid_to IS NULL;
    IF FOUND THEN
        RETURN now();
    END IF;
    SELECT greatest(now(), max(coalesce(valid_to, valid_from + interval '1 microsecond'))) INTO at
    FROM symbol_universe_history WHERE symbol = ended;
    UPDATE symbol_universe_history SET valid_to = at WHERE symbol = ended AND valid_to IS NULL;
    RETURN at;
END
$$;

CREATE FUNCTION keep_universe_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz;
BEGIN
    IF TG_OP = 'UPDATE' AND
       (NEW.symbol, NEW.exchange, NEW.asset_type, NEW.adv_21d, NEW.mkt_cap, NEW.tier, NEW.active, NEW.calendar,
        NEW.name, NEW.currency) IS NOT DISTINCT FROM
       (OLD.symbol, OLD.exchange, OLD.asset_type, OLD.adv_21d, OLD.mkt_cap, OLD.tier, OLD.active, OLD.calendar,
        OLD.name, OLD.currency) THEN
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        at := end_universe_state(OLD.symbol);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        IF TG_OP = 'INSERT' OR NEW.symbol <> OLD.symbol THEN
            at := end_universe_state(NEW.symbol);
        END IF;
        INSERT INTO symbol_universe_history (symbol, valid_from, exchange, asset_type, adv_21d, mkt_cap, tier,
                                             active, calendar, name, currency)
        VALUES (NEW.symbol, at, NEW.exchange, NEW.asset_type, NEW.adv_21d, NEW.mkt_cap, NEW.tier,
                NEW.active, NEW.calendar, NEW.name, NEW.currency);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION end_universe_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM end_universe_state(symbol) FROM symbol_universe_history WHERE valid_to IS NULL;
    RETURN NULL;
END
$$;

CREATE TRIGGER keep_history AFTER INSERT OR UPDATE OR DELETE ON symbol_universe
    FOR EACH ROW EXECUTE FUNCTION keep_universe_history();
CREATE TRIGGER end_history AFTER TRUNCATE ON symbol_universe
    FOR EACH STATEMENT EXECUTE FUNCTION end_universe_history();

-- What was before is not known: symbols count from their creation on as they are now.
INSERT INTO symbol_universe_history (symbol, valid_from, exchange, asset_type, adv_21d, mkt_cap, tier, active,
                                     calendar, name, currency)
SELECT symbol, created_at, exchange, asset_type, adv_21d, mkt_cap, tier, active, calendar, name, currency
FROM symbol_universe;

CREATE TABLE audit_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    who        text NOT NULL CHECK (who <> ''),             -- name and fingerprint of a key, or an OS user
    action     text NOT NULL CHECK (action <> ''),
    target     text NOT NULL,
    detail     jsonb NOT NULL DEFAULT '{}',
    request_id text,                                        -- null: not over HTTP
    address    text                                         -- null: not over HTTP
);
CREATE INDEX audit_log_at ON audit_log (at);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

-- Every POST /ops/reload, by which the replicas learn of it.
CREATE TABLE config_generations (
    generation bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest     text NOT NULL,                               -- of all settings that a reload can change
    created_at timestamptz NOT NULL DEFAULT now()
);
