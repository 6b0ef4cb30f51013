-- What relays that share this database have to agree on.

-- The relays that run. One that has not said so for a while does not.
CREATE TABLE relays (
    id   BIGINT NOT NULL PRIMARY KEY,
    -- Where the others reach it.
    url  TEXT   NOT NULL,
    beat TIMESTAMPTZ NOT NULL
);

-- At which relay a node is connected, if it is. Places grow in the order in which they become
-- visible, so who knows everything up to one asks for what is behind it.
CREATE SEQUENCE places;

CREATE TABLE seats (
    network TEXT COLLATE "C" NOT NULL,
    key     BYTEA  NOT NULL,
    relay   BIGINT,
    place   BIGINT NOT NULL,
    PRIMARY KEY (network, key)
);

CREATE INDEX seats_place ON seats (place);

-- The nonces of the requests that nodes have signed: each is good once.
CREATE TABLE nonces (
    nonce BYTEA       NOT NULL PRIMARY KEY CHECK (octet_length(nonce) = 32),
    taken TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX nonces_taken ON nonces (taken);

-- What the first relay makes and all have then.
CREATE TABLE kept (
    name  TEXT  NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);
