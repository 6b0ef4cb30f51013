-- Times are unix seconds, keys and hashes raw bytes.

CREATE TABLE networks (
    id       TEXT    NOT NULL PRIMARY KEY,
    created  INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    mark     BLOB    NOT NULL
) STRICT;

-- The Ed25519 seed that signs the records of a network. Apart from the rest
-- so that no query about networks can carry it along.
CREATE TABLE issuers (
    network TEXT    NOT NULL PRIMARY KEY REFERENCES networks (id) ON DELETE CASCADE,
    seed    BLOB    NOT NULL CHECK (length(seed) = 32),
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
    network TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    subject TEXT    NOT NULL,
    role    TEXT    NOT NULL CHECK (role IN ('owner', 'member', 'guest')),
    created INTEGER NOT NULL,
    PRIMARY KEY (network, subject)
) STRICT;

CREATE TABLE invites (
    id             TEXT    NOT NULL PRIMARY KEY,
    hash           BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    network        TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    created_by     TEXT    NOT NULL,
    mine           INTEGER NOT NULL,
    uses_remaining INTEGER NOT NULL CHECK (uses_remaining >= 0),
    created        INTEGER NOT NULL,
    expires        INTEGER NOT NULL
) STRICT;

CREATE INDEX invites_network ON invites (network);

-- A revoked node stays, so that its key cannot join again and a peer that was
-- away still learns of it. Its name is free for another key.
CREATE TABLE nodes (
    network  TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    key      BLOB    NOT NULL CHECK (length(key) = 32),
    name     TEXT    NOT NULL,
    sign_key BLOB    NOT NULL CHECK (length(sign_key) = 32),
    owner    TEXT    NOT NULL,
    groups   TEXT    NOT NULL,
    invite   TEXT    NOT NULL,
    issued   INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    changed  INTEGER NOT NULL,
    seen     INTEGER,
    revoked  INTEGER,
    PRIMARY KEY (network, key)
) STRICT;

CREATE UNIQUE INDEX nodes_name ON nodes (network, name) WHERE revoked IS NULL;

-- One row per change of a network's membership: the mark proves that a
-- revision a node shows is one of this database.
CREATE TABLE changes (
    network  TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    mark     BLOB    NOT NULL CHECK (length(mark) = 8),
    at       INTEGER NOT NULL,
    PRIMARY KEY (network, revision)
) STRICT;
