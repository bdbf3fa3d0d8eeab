-- The symbols FinSight watches, and the versions of that list.

CREATE TABLE symbol_universe (
    symbol     text PRIMARY KEY CHECK (symbol <> ''),
    exchange   text NOT NULL,
    asset_type text NOT NULL,                               -- equity, etf, index, crypto, fx, future
    adv_21d    double precision CHECK (adv_21d >= 0),       -- average daily volume of 21 sessions, in units
    mkt_cap    double precision CHECK (mkt_cap >= 0),       -- in `currency`
    tier       text NOT NULL DEFAULT 'T2' CHECK (tier IN ('T0', 'T1', 'T2', 'T3')),
    active     boolean NOT NULL DEFAULT true,
    calendar   text NOT NULL DEFAULT 'XNYS',                -- exchange calendar, or 24/7
    name       text NOT NULL DEFAULT '',
    currency   text NOT NULL DEFAULT 'USD',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE universe_versions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version_tag text NOT NULL UNIQUE CHECK (version_tag <> ''),
    source_meta jsonb NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now()
);
