-- Who has logged in, by the hash of the token that their client holds. `via` names the door by
-- which they came: when the relay has another one, the login is good no longer.
CREATE TABLE logins (
    hash    BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    id      TEXT    NOT NULL UNIQUE,
    subject TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    via     TEXT    NOT NULL,
    label   TEXT    NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT;

CREATE INDEX logins_subject ON logins (subject, created);
CREATE INDEX logins_expires ON logins (expires);

-- Logins under way, by the hash of the secret that goes on with them; `state` is JSON.
CREATE TABLE login_attempts (
    hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    state      TEXT    NOT NULL,
    not_before INTEGER NOT NULL,
    expires    INTEGER NOT NULL
) STRICT;

CREATE INDEX login_attempts_expires ON login_attempts (expires);
