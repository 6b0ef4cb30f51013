-- Public keys with which people come in over SSH. A key is one person's.
CREATE TABLE ssh_keys (
    fingerprint TEXT    NOT NULL PRIMARY KEY,
    subject     TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    created     INTEGER NOT NULL
) STRICT;

CREATE INDEX ssh_keys_subject ON ssh_keys (subject);

-- Passwords for SSH, each good for one login to one node.
CREATE TABLE ssh_passwords (
    hash    BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    subject TEXT    NOT NULL,
    network TEXT    NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    node    TEXT    NOT NULL,
    expires INTEGER NOT NULL
) STRICT;
