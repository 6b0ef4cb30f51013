-- How the issuers of a network followed each other: signed statements, never
-- changed. The seed of an issuer that has handed over is nowhere any more.
CREATE TABLE handovers (
    network TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    number  INTEGER NOT NULL,
    body    TEXT    NOT NULL,
    PRIMARY KEY (network, number)
) STRICT;

-- Who was in a network that was deleted, so that a node which was away then is
-- told when it comes back; not of the network that has the name now.
CREATE TABLE obituaries (
    network  TEXT    NOT NULL,
    root     BLOB    NOT NULL CHECK (length(root) = 32),
    key      BLOB    NOT NULL CHECK (length(key) = 32),
    sign_key BLOB    NOT NULL CHECK (length(sign_key) = 32),
    -- Signed by the last issuer, with the hand-overs that lead to it.
    body     TEXT    NOT NULL,
    deleted  INTEGER NOT NULL,
    PRIMARY KEY (network, root, key)
) STRICT;

CREATE INDEX obituaries_deleted ON obituaries (deleted);
