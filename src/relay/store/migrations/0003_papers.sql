-- The serial of the newest paper of a network.
ALTER TABLE networks ADD COLUMN serial INTEGER NOT NULL DEFAULT 0;

-- Groups and grants, each one document (JSON) that is replaced whole.
CREATE TABLE papers (
    network TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    name    TEXT    NOT NULL,
    kind    TEXT    NOT NULL CHECK (kind IN ('group', 'grant')),
    serial  INTEGER NOT NULL,
    body    TEXT    NOT NULL,
    -- When it may be forgotten; never if null.
    until   INTEGER,
    PRIMARY KEY (network, name)
) STRICT;

-- The name that the node which redeems it gets, whatever it asks for.
ALTER TABLE invites ADD COLUMN node_name TEXT;
