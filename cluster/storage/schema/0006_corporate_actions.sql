-- Splits and dividends. Bars stay as they were traded; these are applied when bars are read.

CREATE TABLE corporate_actions (
    symbol     text NOT NULL CHECK (symbol <> ''),
    ex_date    date NOT NULL,                               -- first session that trades without it
    kind       text NOT NULL CHECK (kind IN ('split', 'dividend')),
    value      double precision NOT NULL CHECK (value > 0 AND value < 'Infinity'),
    source     text NOT NULL CHECK (source <> ''),
    revision   integer NOT NULL DEFAULT 0,                  -- how often the value was changed
    seen_at    timestamptz NOT NULL DEFAULT now(),          -- when the source was first seen to tell it
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, ex_date, kind, source)
);
