-- Values that the nodes of a network share. Times are unix milliseconds.

-- A row without a value is one that was deleted or has expired: who follows
-- learns of it. It goes after a day.
CREATE TABLE shared (
    network    TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    space      TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    value      BLOB,
    revision   INTEGER NOT NULL,
    expires    INTEGER,
    changed    INTEGER NOT NULL,
    changed_by TEXT    NOT NULL,
    PRIMARY KEY (network, space, key)
) STRICT;

CREATE INDEX shared_revision ON shared (network, space, revision);
CREATE INDEX shared_expires ON shared (expires) WHERE expires IS NOT NULL;

-- Per network: the revision of the last change, the revision up to which
-- deletions may have been forgotten, and what there is in all.
CREATE TABLE shared_sums (
    network  TEXT    NOT NULL PRIMARY KEY REFERENCES networks (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    floor    INTEGER NOT NULL,
    keys     INTEGER NOT NULL,
    bytes    INTEGER NOT NULL
) STRICT;
