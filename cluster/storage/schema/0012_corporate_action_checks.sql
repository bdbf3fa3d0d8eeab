-- When the splits and dividends of a symbol were last asked for.

CREATE TABLE corporate_action_checks (
    symbol     text PRIMARY KEY CHECK (symbol <> ''),
    asked_at   timestamptz NOT NULL,                        -- start of the newest attempt, whatever came of it
    checked_at timestamptz,                                 -- newest answer; null: none yet
    source     text                                         -- who gave it
);
