-- What one relay has another do. It holds tickets of visitors: who may not read this table does not
-- learn them, and who may not write it sends nobody anywhere.
CREATE TABLE errands (
    number   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    to_relay BIGINT NOT NULL,
    -- JSON.
    body     TEXT   NOT NULL CHECK (octet_length(body) <= 8192),
    sent     TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX errands_to ON errands (to_relay);
