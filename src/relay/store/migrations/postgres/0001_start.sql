-- The schema of 0001 to 0005 beside this, in PostgreSQL. What is text is compared byte by byte, as
-- SQLite does it. Times are unix seconds unless they are said to be milliseconds; keys and hashes
-- are raw bytes.

CREATE TABLE networks (
    id       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created  BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    mark     BYTEA  NOT NULL,
    -- The serial of the newest paper.
    serial   BIGINT NOT NULL DEFAULT 0
);

-- The Ed25519 seed that signs the records of a network. Apart from the rest so that no query about
-- networks can carry it along.
CREATE TABLE issuers (
    network TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES networks (id) ON DELETE CASCADE,
    seed    BYTEA  NOT NULL CHECK (octet_length(seed) = 32),
    created BIGINT NOT NULL
);

CREATE TABLE members (
    network TEXT COLLATE "C" NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    subject TEXT COLLATE "C" NOT NULL,
    role    TEXT   NOT NULL CHECK (role IN ('owner', 'member', 'guest')),
    created BIGINT NOT NULL,
    PRIMARY KEY (network, subject)
);

CREATE TABLE invites (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    hash           BYTEA   NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    network        TEXT COLLATE "C" NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    created_by     TEXT    NOT NULL,
    mine           BOOLEAN NOT NULL,
    uses_remaining BIGINT  NOT NULL CHECK (uses_remaining >= 0),
    created        BIGINT  NOT NULL,
    expires        BIGINT  NOT NULL,
    -- The name that the node which redeems it gets, whatever it asks for.
    node_name      TEXT
);

CREATE INDEX invites_network ON invites (network);

-- A revoked node stays, so that its key cannot join again and a peer that was away still learns of
-- it. Its name is free for another key.
CREATE TABLE nodes (
    network  TEXT COLLATE "C" NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    key      BYTEA  NOT NULL CHECK (octet_length(key) = 32),
    name     TEXT COLLATE "C" NOT NULL,
    sign_key BYTEA  NOT NULL CHECK (octet_length(sign_key) = 32),
    owner    TEXT COLLATE "C" NOT NULL,
    groups   TEXT   NOT NULL,
    invite   TEXT   NOT NULL,
    issued   BIGINT NOT NULL,
    expires  BIGINT NOT NULL,
    created  BIGINT NOT NULL,
    changed  BIGINT NOT NULL,
    seen     BIGINT,
    revoked  BIGINT,
    PRIMARY KEY (network, key)
);

CREATE UNIQUE INDEX nodes_name ON nodes (network, name) WHERE revoked IS NULL;
CREATE INDEX nodes_changed ON nodes (network, changed);

-- One row per change of a network's membership: the mark proves that a revision a node shows is one
-- of this database.
CREATE TABLE changes (
    network  TEXT COLLATE "C" NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    revision BIGINT NOT NULL,
    mark     BYTEA  NOT NULL CHECK (octet_length(mark) = 8),
    at       BIGINT NOT NULL,
    PRIMARY KEY (network, revision)
);

-- Values that the nodes of a network share; times are unix milliseconds. A row without a value is
-- one that was deleted or has expired: who follows learns of it. It goes after a day.
CREATE TABLE shared (
    network    TEXT COLLATE "C" NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    space      TEXT COLLATE "C" NOT NULL,
    key        TEXT COLLATE "C" NOT NULL,
    value      BYTEA,
    revision   BIGINT NOT NULL,
    expires    BIGINT,
    changed    BIGINT NOT NULL,
    changed_by TEXT   NOT NULL,
    PRIMARY KEY (network, space, key)
);

CREATE INDEX shared_revision ON shared (network, space, revision);
CREATE INDEX shared_expires ON shared (expires) WHERE expires IS NOT NULL;

-- Per network: the revision of the last change, the revision up to which deletions may have been
-- forgotten, and what there is in all.
CREATE TABLE shared_sums (
    network  TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES networks (id) ON DELETE CASCADE,
    revision BIGINT NOT NULL,
    floor    BIGINT NOT NULL,
    keys     BIGINT NOT NULL,
    bytes    BIGINT NOT NULL
);

-- Groups and grants, each one document (JSON) that is replaced whole.
CREATE TABLE papers (
    network TEXT COLLATE "C" NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    name    TEXT COLLATE "C" NOT NULL,
    kind    TEXT   NOT NULL CHECK (kind IN ('group', 'grant')),
    serial  BIGINT NOT NULL,
    body    TEXT   NOT NULL,
    -- When it may be forgotten; never if null.
    until   BIGINT,
    PRIMARY KEY (network, name)
);

-- How the issuers of a network followed each other: signed statements, never changed.
CREATE TABLE handovers (
    network TEXT COLLATE "C" NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    number  BIGINT NOT NULL,
    body    TEXT   NOT NULL,
    PRIMARY KEY (network, number)
);

-- Who was in a network that was deleted, so that a node which was away then is told when it comes
-- back; not of the network that has the name now.
CREATE TABLE obituaries (
    network  TEXT COLLATE "C" NOT NULL,
    root     BYTEA  NOT NULL CHECK (octet_length(root) = 32),
    key      BYTEA  NOT NULL CHECK (octet_length(key) = 32),
    sign_key BYTEA  NOT NULL CHECK (octet_length(sign_key) = 32),
    -- Signed by the last issuer, with the hand-overs that lead to it.
    body     TEXT   NOT NULL,
    deleted  BIGINT NOT NULL,
    PRIMARY KEY (network, root, key)
);

CREATE INDEX obituaries_deleted ON obituaries (deleted);

-- Public keys with which people come in over SSH. A key is one person's.
CREATE TABLE ssh_keys (
    fingerprint TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    subject     TEXT COLLATE "C" NOT NULL,
    key         TEXT   NOT NULL,
    created     BIGINT NOT NULL
);

CREATE INDEX ssh_keys_subject ON ssh_keys (subject);

-- Passwords for SSH, each good for one login to one node.
CREATE TABLE ssh_passwords (
    hash    BYTEA  NOT NULL PRIMARY KEY CHECK (octet_length(hash) = 32),
    subject TEXT COLLATE "C" NOT NULL,
    network TEXT COLLATE "C" NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node    TEXT   NOT NULL,
    expires BIGINT NOT NULL
);
