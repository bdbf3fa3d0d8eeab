-- Every served prediction that names a symbol, and later what came of it.
-- mean, lower and upper are log returns of the next `horizon` bars, from last_close on.

CREATE TABLE predictions (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol         text NOT NULL,
    interval       text NOT NULL,
    as_of          timestamptz NOT NULL,                    -- open of the last bar the model saw
    horizon        integer NOT NULL CHECK (horizon > 0),    -- bars ahead
    target_ts      timestamptz NOT NULL,                    -- open of the bar that is predicted
    model_name     text NOT NULL,
    model_version  text NOT NULL,
    model_type     text NOT NULL,                           -- ensemble, or one member
    mean           double precision NOT NULL,
    lower          double precision NOT NULL,
    upper          double precision NOT NULL,
    coverage       double precision NOT NULL CHECK (coverage > 0 AND coverage < 1),
    probability_up double precision NOT NULL CHECK (probability_up BETWEEN 0 AND 1),
    last_close     double precision NOT NULL CHECK (last_close > 0 AND last_close < 'Infinity'),
    created_at     timestamptz NOT NULL DEFAULT now(),
    outcome        double precision,                        -- log return that came; null: not known yet
    outcome_at     timestamptz,                             -- when it was filled in
    CHECK (as_of < target_ts),
    CHECK (lower <= mean AND mean <= upper AND lower > '-Infinity' AND upper < 'Infinity'),
    CHECK ((outcome IS NULL) = (outcome_at IS NULL))
);

CREATE INDEX predictions_symbol ON predictions (symbol, interval, as_of DESC, id DESC);
CREATE INDEX predictions_waiting ON predictions (target_ts) WHERE outcome IS NULL;
