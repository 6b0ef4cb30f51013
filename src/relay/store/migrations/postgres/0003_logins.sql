-- Who has logged in, by the hash of the token that their client holds. `via` names the door by
-- which they came: when the relay has another one, the login is good no longer.
CREATE TABLE logins (
    hash    BYTEA  NOT NULL PRIMARY KEY CHECK (octet_length(hash) = 32),
    id      TEXT COLLATE "C" NOT NULL UNIQUE,
    subject TEXT COLLATE "C" NOT NULL,
    name    TEXT   NOT NULL,
    via     TEXT   NOT NULL,
    label   TEXT   NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE INDEX logins_subject ON logins (subject, created);
CREATE INDEX logins_expires ON logins (expires);

-- Logins under way, by the hash of the secret that goes on with them; `state` is JSON.
CREATE TABLE login_attempts (
    hash       BYTEA  NOT NULL PRIMARY KEY CHECK (octet_length(hash) = 32),
    state      TEXT   NOT NULL,
    not_before BIGINT NOT NULL,
    expires    BIGINT NOT NULL
);

CREATE INDEX login_attempts_expires ON login_attempts (expires);
